//! Carries out a plan: each event in a task of its own, from its beginning to its end.

use super::machines::Machines;
use super::network::{self, Cut, Rates, Slow, Vanish};
use super::newest::Newest;
use super::orders::Orders;
use super::{damage, view};
use crate::campaign::fault::{DiskOp, Down, Fault, Member, Moment, Who};
use crate::campaign::plan::{Event, Plan};
use crate::campaign::record::Band;
use crate::sim::nodes::Key;
use ctrler::config::{GroupId, ShardId};
use std::collections::BTreeSet;
use std::future::Future;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use world::disk::SimDisk;
use world::entropy::random_u64;

/// Down after a power failure at a chosen moment.
const BLINK: Duration = Duration::from_millis(300);

/// What is carried out. Cheap to clone.
#[derive(Clone)]
pub struct Nemesis {
    pub(super) machines: Machines,
    plan: Arc<Plan>,
    bands: Arc<Mutex<Vec<Band>>>,
    /// Groups that were shut down after they had handed over everything.
    pub(super) shut: Arc<Mutex<BTreeSet<GroupId>>>,
    /// Shards that are left alone.
    pub(super) spared: Arc<BTreeSet<ShardId>>,
    /// Is told of the configurations that orders make.
    pub(super) newest: Newest,
    /// What the controllers were told to do.
    pub(super) orders: Orders,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn now_us() -> u64 {
    let elapsed = madsim::time::TimeHandle::current().elapsed();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

impl Nemesis {
    /// For this plan, on these machines; what happens is written into `bands`.
    pub fn new(
        machines: Machines,
        plan: Arc<Plan>,
        bands: Arc<Mutex<Vec<Band>>>,
        spared: BTreeSet<ShardId>,
        newest: Newest,
    ) -> Nemesis {
        Nemesis {
            newest,
            orders: Orders::default(),
            spared: Arc::new(spared),
            machines,
            plan,
            bands,
            shut: Arc::default(),
        }
    }

    /// Runs one event of the plan: waits for its time, does it, undoes it. Dropping the future ends
    /// the event where it is.
    pub async fn event(self, number: usize) {
        let event = self.plan.events[number].clone();
        sleep(ms(event.at_ms)).await;
        self.carry_out(number, &event).await;
    }

    fn band(&self, number: usize, fault: &Fault, hit: &[Key]) -> usize {
        let from_us = now_us();
        let mut bands = lock(&self.bands);
        bands.push(Band {
            from_us,
            to_us: from_us,
            family: fault.family().into(),
            servers: hit.iter().map(|key| self.machines.site(*key)).collect(),
            text: format!("{fault:?}"),
            event: number,
            effective: false,
        });
        bands.len() - 1
    }

    fn ended(&self, band: usize) {
        lock(&self.bands)[band].to_us = now_us();
    }

    /// The fault comes to something.
    fn works(&self, band: usize, it_does: bool) {
        lock(&self.bands)[band].effective |= it_does;
    }

    fn any_up(&self, hit: &[Key]) -> bool {
        hit.iter()
            .any(|key| self.machines.cluster.nodes.is_up(*key))
    }

    pub(super) fn members(&self, group: GroupId) -> Vec<Key> {
        self.machines.cluster.group(group)
    }

    /// The machine meant; `None`: the plan names one that does not exist.
    pub(super) fn key(&self, who: Who) -> Option<Key> {
        let members = self.members(who.group);
        let node = view::node(who, members.len() as u64);
        members.get(node.checked_sub(1)? as usize).copied()
    }

    async fn carry_out(&self, number: usize, event: &Event) {
        let long = ms(event.for_ms);
        let fault = &event.fault;
        let hit = self.hit(fault);
        let band = self.band(number, fault, &hit);
        match fault {
            Fault::Isolate(_)
            | Fault::OneWay { .. }
            | Fault::Split { .. }
            | Fault::SplitAll { .. }
            | Fault::Bridge { .. }
            | Fault::Ring { .. } => {
                let cuts = self.cuts(fault, &hit);
                self.works(band, !cuts.is_empty());
                self.cut(&cuts, sleep(long)).await;
            }
            Fault::Flap { every_ms, .. } => {
                self.works(band, !hit.is_empty());
                self.flap(&hit, ms(*every_ms), long).await;
            }
            Fault::Swizzle { every_ms, .. } => {
                self.works(band, hit.len() > 1);
                self.swizzle(&hit, ms(*every_ms), long).await;
            }
            Fault::Messages { .. } | Fault::SlowLink { .. } | Fault::Latency { .. } => {
                self.works(band, true);
                self.messages(number, fault, long).await;
            }
            Fault::HalfOpen(_) | Fault::CutFromClients { .. } => {
                let which = match fault {
                    Fault::CutFromClients { hears, .. } => Vanish::Clients(!hears),
                    _ => Vanish::Both,
                };
                let site = hit.first().map(|key| self.machines.site(*key));
                self.works(band, site.is_some());
                network::black_hole(number, site.map(|site| (site, which)));
                sleep(long).await;
                network::black_hole(number, None);
            }
            Fault::Down { how, .. } => {
                self.works(band, self.any_up(&hit));
                self.down(&hit, *how, sleep(long)).await;
            }
            Fault::PowerCut => {
                self.works(band, self.any_up(&hit));
                self.down(&hit, Down::Power, sleep(long)).await;
            }
            Fault::Pause(_) => self.works(band, self.still(&hit, long).await),
            Fault::Stutter {
                still_ms, goes_ms, ..
            } => {
                let since = world::clock::now();
                while since.elapsed() < long {
                    let still = self.still(&hit, ms(*still_ms)).await;
                    self.works(band, still);
                    sleep(ms(*goes_ms)).await;
                }
            }
            Fault::CrashLoop { times, .. } => {
                for n in 0..*times {
                    let up = long / (*times as u32 + 1);
                    self.works(band, self.any_up(&hit));
                    let how = if n % 2 == 0 {
                        Down::Power
                    } else {
                        Down::Process
                    };
                    self.down(&hit, how, sleep(up / 4)).await;
                    sleep(up).await;
                }
            }
            Fault::Rolling { .. } => {
                for key in &hit {
                    let part = long / (hit.len() as u32).max(1);
                    self.works(band, self.any_up(&[*key]));
                    self.down(&[*key], Down::Graceful, sleep(part / 2)).await;
                    sleep(part / 2).await;
                }
            }
            Fault::PowerOffWhen {
                group,
                moment,
                skip,
            } => {
                if let Ok(key) = timeout(long, self.come(*group, *moment, *skip)).await {
                    self.works(band, self.any_up(&[key]));
                    self.machines.blink(key, BLINK).await;
                }
            }
            Fault::PauseWhen {
                group,
                moment,
                skip,
                still_ms,
            } => {
                if let Ok(key) = timeout(long, self.come(*group, *moment, *skip)).await {
                    let still = self.still(&[key], ms(*still_ms)).await;
                    self.works(band, still);
                }
            }
            Fault::PowerOffInside { nth, .. } => {
                self.power_off_inside(band, &hit, *nth, long).await;
            }
            Fault::PowerOffInsideWhen {
                group,
                moment,
                skip,
                nth,
            } => {
                if let Ok(key) = timeout(long, self.come(*group, *moment, *skip)).await {
                    self.power_off_inside(band, &[key], *nth, ms(2000)).await;
                }
            }
            Fault::LeaderChain { group, back_ms } => {
                let _ = timeout(long, self.leader_chain(band, *group, ms(*back_ms))).await;
            }
            Fault::EmptyDisk(_)
            | Fault::OldDisk(_)
            | Fault::Rot { .. }
            | Fault::WrongBlock { .. }
            | Fault::LostFile { .. } => self.spoil(band, fault, &hit, long).await,
            Fault::DiskError { op, nth, .. } => self.disk_error(band, &hit, *op, *nth, long).await,
            Fault::DiskFull { left, .. } => {
                let whole = |key| super::capacity(&self.plan, self.machines.site(key));
                // (One machine.)
                let whole = hit.first().map_or(u64::MAX, |key| whole(*key));
                let full = |disk: &SimDisk, on: bool| {
                    let mut options = disk.options();
                    options.capacity = if on { disk.used() + left } else { whole };
                    disk.set_options(options);
                };
                self.works(band, self.any_up(&hit));
                self.with_disk(&hit, true, full, long).await;
            }
            Fault::DiskStall { percent, .. } => {
                let before = self.plan.options.stall_ppm as f64 / 1e6;
                let stall = |disk: &SimDisk, on: bool| {
                    let mut options = disk.options();
                    options.stall = if on { *percent as f64 / 100.0 } else { before };
                    disk.set_options(options);
                };
                self.works(band, self.any_up(&hit));
                self.with_disk(&hit, false, stall, long).await;
            }
            Fault::ClockRate { ppm, .. } => {
                self.works(band, !hit.is_empty());
                self.clock(&hit, *ppm, Duration::ZERO);
                sleep(long).await;
                self.clock(&hit, 0, Duration::ZERO);
            }
            Fault::ClockJump { by_ms, .. } => {
                self.works(band, !hit.is_empty());
                self.clock(&hit, 0, ms(*by_ms));
            }
            Fault::Move { .. } | Fault::Join(_) | Fault::Leave { .. } => {
                self.works(band, self.order(fault).await);
            }
            Fault::BackAndForth {
                shard,
                a,
                b,
                every_ms,
            } => {
                let back_and_forth = async {
                    for group in [*a, *b].into_iter().cycle() {
                        let shard = *shard;
                        let moved = self.order(&Fault::Move { shard, group }).await;
                        self.works(band, moved);
                        sleep(ms(*every_ms)).await;
                    }
                };
                let _ = timeout(long, back_and_forth).await;
            }
        }
        self.ended(band);
    }

    async fn cut(&self, cuts: &[Cut], during: impl Future<Output = ()>) {
        let nodes = &self.machines.cluster.nodes;
        cuts.iter().for_each(|cut| network::cut(nodes, *cut));
        during.await;
        cuts.iter().for_each(|cut| network::mend(nodes, *cut));
    }

    async fn flap(&self, hit: &[Key], every: Duration, long: Duration) {
        let since = world::clock::now();
        let cuts: Vec<Cut> = hit
            .iter()
            .flat_map(|key| [Cut::Hearing(*key), Cut::Speech(*key)])
            .collect();
        while since.elapsed() < long {
            self.cut(&cuts, sleep(every)).await;
            sleep(every).await;
        }
    }

    async fn swizzle(&self, hit: &[Key], every: Duration, long: Duration) {
        let nodes = &self.machines.cluster.nodes;
        // All but the first, in one order; healed from the second on, in another.
        let cut = |key: &Key| [Cut::Hearing(*key), Cut::Speech(*key)];
        for key in hit.iter().skip(1) {
            cut(key).into_iter().for_each(|c| network::cut(nodes, c));
            sleep(every).await;
        }
        sleep(long).await;
        for key in hit.iter().skip(1) {
            cut(key).into_iter().for_each(|c| network::mend(nodes, c));
            sleep(every).await;
        }
    }

    async fn messages(&self, number: usize, fault: &Fault, long: Duration) {
        let nodes = &self.machines.cluster.nodes;
        let (least, most) = self.plan.options.latency_ms;
        match fault {
            Fault::Messages {
                scope,
                drop_ppm,
                duplicate_ppm,
                delay_ppm,
                latest_ms,
                reset_ppm,
                flip_ppm,
            } => network::rates(
                number,
                Some(Rates {
                    scope: *scope,
                    ppm: [*drop_ppm, *duplicate_ppm, *delay_ppm, *reset_ppm, *flip_ppm],
                    latest: ms(*latest_ms),
                }),
            ),
            Fault::SlowLink { group, a, b, by_ms } => network::slow(
                number,
                Some(Slow {
                    group: *group,
                    pair: (*a, *b),
                    by: ms(*by_ms),
                }),
            ),
            Fault::Latency { most_ms } => nodes.network(0.0, ms(least)..ms(most + most_ms)),
            _ => {}
        }
        sleep(long).await;
        network::rates(number, None);
        network::slow(number, None);
        if matches!(fault, Fault::Latency { .. }) {
            nodes.network(0.0, ms(least)..ms(most));
        }
    }

    async fn down(&self, hit: &[Key], how: Down, during: impl Future<Output = ()>) {
        for key in hit {
            self.machines.hold(*key, how).await;
        }
        during.await;
        hit.iter().for_each(|key| self.machines.release(*key));
    }

    /// True when somebody stood still.
    async fn still(&self, hit: &[Key], long: Duration) -> bool {
        let any = hit.iter().any(|key| self.machines.is_well(*key));
        hit.iter().for_each(|key| self.machines.pause(*key));
        sleep(long).await;
        for key in hit {
            self.machines.unpause(*key);
        }
        any
    }

    /// The member that comes to this moment, after `skip` did.
    async fn come(&self, group: GroupId, moment: Moment, skip: u64) -> Key {
        let mut moments = view::moments(group, moment);
        let mut left = skip;
        loop {
            match moments.recv().await {
                Some(node) if left == 0 => return self.machines.cluster.key(group, node),
                Some(_) => left -= 1,
                None => std::future::pending().await,
            }
        }
    }

    async fn power_off_inside(&self, band: usize, hit: &[Key], nth: u64, long: Duration) {
        for key in hit {
            let disk = self.machines.cluster.nodes.disk(*key);
            self.machines.disk_fails(*key);
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            disk.on_crash(Some(Box::new(move || {
                let _ = tell.send(());
            })));
            disk.crash_at(nth);
            let went_off = timeout(long, told.recv()).await.is_ok();
            self.works(band, went_off);
            disk.on_crash(None);
            disk.clear_faults();
            self.machines.disk_works(*key);
            if went_off {
                disk.crashed();
                self.machines.blink(*key, BLINK).await;
            }
        }
    }

    async fn leader_chain(&self, band: usize, group: GroupId, back: Duration) {
        let mut leads = view::moments(group, Moment::Leads);
        let mut synced = view::moments(group, Moment::Synced);
        let mut commits = view::moments(group, Moment::Commits);
        let mut blow = self.key(Who {
            group,
            member: Member::Leader,
        });
        loop {
            if let Some(key) = blow.take() {
                self.works(band, self.any_up(&[key]));
                let machines = self.machines.clone();
                // It comes back while its successors die, and in spite of the event's end.
                tokio::spawn(async move { machines.blink(key, back).await });
            }
            let Some(node) = leads.recv().await else {
                return;
            };
            let deadly = match random_u64().is_multiple_of(2) {
                true => &mut synced,
                false => &mut commits,
            };
            while deadly.try_recv().is_ok() {}
            let dies = async { while deadly.recv().await.is_some_and(|n| n != node) {} };
            // One that is deposed before does not come to it.
            let _ = timeout(ms(1500), dies).await;
            blow = Some(self.machines.cluster.key(group, node));
        }
    }

    async fn spoil(&self, band: usize, fault: &Fault, hit: &[Key], long: Duration) {
        for key in hit {
            let disk = self.machines.cluster.nodes.disk(*key);
            match fault {
                Fault::OldDisk(_) => self.older_image(band, *key, &disk, long).await,
                _ => {
                    self.machines.hold(*key, Down::Power).await;
                    if damage::damage(&disk, fault) {
                        self.works(band, true);
                        self.machines
                            .spoil(*key, matches!(fault, Fault::EmptyDisk(_)));
                    }
                    sleep(long).await;
                    self.machines.release(*key);
                }
            }
        }
    }

    /// The copy is of an earlier start: a disk put back within one start carries nothing that would
    /// tell. And its peers must have met the later one, so it is given only when all serve and
    /// hear each other.
    async fn older_image(&self, band: usize, key: Key, disk: &SimDisk, long: Duration) {
        let image = disk.image();
        self.machines.blink(key, BLINK).await;
        sleep(long).await;
        let (group, _) = self.machines.site(key);
        let serves = |key: &Key| self.machines.serves(*key);
        let mut calm = true;
        for _ in 0..50 {
            sleep(ms(100)).await;
            calm &= network::calm() && self.members(group).iter().all(serves);
        }
        self.machines.hold(key, Down::Power).await;
        if calm {
            disk.restore(&image);
            self.machines.age(key);
            self.works(band, true);
        }
        self.machines.release(key);
    }

    /// Comes to something when the disk did so many operations of the kind meanwhile.
    async fn disk_error(&self, band: usize, hit: &[Key], op: DiskOp, nth: u64, long: Duration) {
        use world::disk::DiskOp as Op;
        if op == DiskOp::Name {
            hit.iter().for_each(|key| self.machines.may_be_untidy(*key));
        }
        let count = |disk: &SimDisk| {
            let stats = disk.stats();
            let syncs = stats.syncs + stats.dir_syncs;
            match op {
                DiskOp::Read => stats.reads,
                DiskOp::Write => stats.writes,
                DiskOp::Sync => syncs,
                // (Changes of length are among them.)
                DiskOp::Name => (stats.changes).saturating_sub(stats.writes + syncs),
            }
        };
        let disks = || hit.iter().map(|key| self.machines.cluster.nodes.disk(*key));
        let before: Vec<u64> = disks().map(|disk| count(&disk)).collect();
        let kind = match op {
            DiskOp::Read => Op::Read,
            DiskOp::Write => Op::Write,
            DiskOp::Sync => Op::Sync,
            DiskOp::Name => Op::Name,
        };
        let fail = |disk: &SimDisk, on: bool| match on {
            true => disk.fail_nth(kind, nth, ErrorKind::Other),
            false => disk.clear_faults(),
        };
        self.with_disk(hit, true, fail, long).await;
        let mut all = disks().zip(before);
        let failed = all.any(|(disk, before)| count(&disk) >= before + nth);
        self.works(band, failed);
    }

    /// `fails`: not only late, so the server may end.
    async fn with_disk(
        &self,
        hit: &[Key],
        fails: bool,
        set: impl Fn(&SimDisk, bool),
        long: Duration,
    ) {
        for key in hit {
            let disk = self.machines.cluster.nodes.disk(*key);
            match fails {
                true => self.machines.disk_fails(*key),
                false => self.machines.disk_is_late(*key),
            }
            set(&disk, true);
            sleep(long).await;
            set(&disk, false);
            match fails {
                true => self.machines.disk_works(*key),
                false => self.machines.disk_hurries(*key),
            }
        }
    }

    fn clock(&self, hit: &[Key], ppm: i64, jump: Duration) {
        for key in hit {
            let node = self.machines.cluster.nodes.sim(*key);
            world::clock::inject::set_rate_ppm(node, ppm);
            world::clock::inject::jump(node, jump);
        }
    }
}
