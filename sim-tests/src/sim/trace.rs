//! The event trace of a run: what the nodes tell through `world::observe`, with simulated time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Once;
use world::observe::{Event, sink};

/// Events kept for the report of a failure; older ones only enter the digest.
const KEEP: usize = 4096;

/// Events printed when a run fails.
const SHOWN: usize = 80;

/// A recorded run.
#[derive(Default)]
struct Trace {
    shown: bool,
    events: Vec<(u64, Event)>,
    count: u64,
    digest: u64,
    whole: bool,
}

type Check = Box<dyn FnMut(u64, &Event)>;

thread_local! {
    static TRACE: RefCell<Rc<RefCell<Trace>>> = RefCell::default();
    static CHECKS: RefCell<Vec<Check>> = RefCell::default();
}

/// A panic shows what the nodes told last, once per run.
fn show_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            let trace = TRACE.try_with(|t| t.try_borrow().ok().map(|t| t.clone()));
            let Ok(Some(trace)) = trace else { return };
            let Ok(mut trace) = trace.try_borrow_mut() else {
                return;
            };
            if !std::mem::replace(&mut trace.shown, true) {
                let from = trace.events.len().saturating_sub(SHOWN);
                for (at, event) in &trace.events[from..] {
                    eprintln!("{}", line(*at, event));
                }
            }
        }));
    });
}

/// Starts a fresh trace on this thread; the newest [`KEEP`] events are kept.
pub fn start() {
    show_on_panic();
    let trace = Rc::new(RefCell::new(Trace {
        whole: TRACE.with(|t| t.borrow().borrow().whole),
        ..Trace::default()
    }));
    TRACE.with(|t| *t.borrow_mut() = trace.clone());
    CHECKS.with(|c| c.borrow_mut().clear());
    sink::clear_marks();
    world::clock::inject::clear();
    sink::listen(Some(Box::new(move |event| {
        let at = now_us();
        trace.borrow_mut().record(at, event.clone());
        CHECKS.with(|checks| {
            for check in checks.borrow_mut().iter_mut() {
                check(at, &event);
            }
        });
    })));
}

fn now_us() -> u64 {
    let elapsed = madsim::time::TimeHandle::try_current().map(|t| t.elapsed());
    elapsed.map_or(0, |e| u64::try_from(e.as_micros()).unwrap_or(u64::MAX))
}

/// Keeps every event from now on (for comparing whole runs).
pub fn keep_whole() {
    TRACE.with(|t| t.borrow().borrow_mut().whole = true);
}

/// Adds an invariant that sees every event as it happens; it panics when violated. Removed by the
/// next [`start`].
pub fn check(check: impl FnMut(u64, &Event) + 'static) {
    CHECKS.with(|checks| checks.borrow_mut().push(Box::new(check)));
}

impl Trace {
    fn record(&mut self, at: u64, event: Event) {
        self.count += 1;
        // FNV-1a over what identifies the event.
        let mut mix = |n: u64| {
            self.digest = (self.digest ^ n)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(17);
        };
        mix(at);
        mix(event.site.group << 32 | event.site.node);
        event.kind.bytes().for_each(|b| mix(b.into()));
        event.fields.iter().for_each(|(_, v)| mix(*v));
        if !self.whole && self.events.len() >= 2 * KEEP {
            self.events.drain(..KEEP);
        }
        self.events.push((at, event));
    }
}

/// How often each coverage mark was hit in this run.
pub fn marks() -> BTreeMap<&'static str, u64> {
    sink::marks()
}

/// Number of events so far and a digest of all of them.
pub fn digest() -> (u64, u64) {
    TRACE.with(|t| {
        let trace = t.borrow();
        let trace = trace.borrow();
        (trace.count, trace.digest)
    })
}

/// The kept events, with their times in µs.
pub fn events() -> Vec<(u64, Event)> {
    TRACE.with(|t| t.borrow().borrow().events.clone())
}

/// When the last event was told (µs); after a run that was broken off, about its end.
pub fn last_us() -> u64 {
    TRACE.with(|t| t.borrow().borrow().events.last().map_or(0, |(at, _)| *at))
}

/// The kept events, a line each.
pub fn lines() -> Vec<String> {
    TRACE.with(|t| {
        t.borrow()
            .borrow()
            .events
            .iter()
            .map(|(at, e)| line(*at, e))
            .collect()
    })
}

fn line(at: u64, event: &Event) -> String {
    let mut line = format!(
        "{:>10}.{:06} g{} n{} {}",
        at / 1_000_000,
        at % 1_000_000,
        event.site.group,
        event.site.node,
        event.kind
    );
    for (name, value) in &event.fields {
        let _ = write!(line, " {name}={value}");
    }
    line
}
