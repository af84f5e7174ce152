//! The timeline of a run: one HTML page that needs no network and opens from the disk.

mod lanes;
mod ownership;
mod view;
mod words;

use super::{replay_line, replay_plan_line, seeds};
use crate::campaign::fault::FAMILIES;
use crate::campaign::record::Record;
use std::fmt::Write;
use view::{Detail, View, clip, view};
use words::words;

/// The page stays below this (bytes).
pub const LIMIT: usize = 5 << 20;
/// Of it for the words: message, options, events, violating operations.
const WORDS: usize = 1 << 20;
/// Longest message of a violation (characters).
const MESSAGE: usize = 32 << 10;
/// Events of the plan, and violating operations, in their tables.
const ROWS: usize = 400;
/// Longest cell of a table (characters).
const CELL: usize = 400;

/// The page of a run. The same record gives the same page. `bug`: what was put back into the tree for
/// this run.
pub fn page(record: &Record, bug: Option<&str>) -> String {
    let (view, data) = fitting(record);
    let mut page = String::with_capacity(data.len() + (64 << 10));
    page += "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
    page += "<meta name=\"viewport\" content=\"width=device-width\">\n";
    let _ = writeln!(page, "<title>{}</title>", escape(&title(record)));
    page += concat!("<style>\n", include_str!("timeline/page.css"), "</style>\n");
    page += "</head>\n<body>\n<header>\n";
    header(&mut page, record, &view, bug);
    page += "</header>\n";
    controls(&mut page, record, &view);
    page += "<div id=\"time\"><canvas id=\"axis\"></canvas></div>\n";
    page += "<canvas id=\"body\"></canvas>\n<div id=\"tip\"></div>\n";
    let _ = writeln!(
        page,
        "<script id=\"data\" type=\"application/json\">{data}</script>"
    );
    page += concat!(
        "<script>\n",
        include_str!("timeline/draw.js"),
        include_str!("timeline/page.js"),
        "</script>\n</body>\n</html>\n"
    );
    page
}

/// As much of the run as fits.
fn fitting(record: &Record) -> (View, String) {
    let mut detail = Detail {
        pieces: 1500,
        operations: 16_000,
    };
    loop {
        let view = view(record, detail);
        // Inside a script element only "<" could end it, or begin a comment.
        let data = serde_json::to_string(&view).unwrap_or_default();
        let data = data.replace('<', "\\u003c");
        if data.len() <= LIMIT - WORDS || detail.operations <= 100 {
            return (view, data);
        }
        detail.pieces = detail.pieces * 2 / 3;
        detail.operations = detail.operations * 2 / 3;
    }
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            c => safe.push(c),
        }
    }
    safe
}

fn title(record: &Record) -> String {
    let what = match &record.violation {
        Some(violation) => format!("{} violated", violation.invariant),
        None => "held".into(),
    };
    format!("{} · {what} · {}", seeds(record), record.test)
}

fn header(page: &mut String, record: &Record, view: &View, bug: Option<&str>) {
    let (seed, test) = (seeds(record), escape(&record.test));
    let _ = match &record.violation {
        Some(violation) => writeln!(
            page,
            "<h1><span class=\"bad\">{} violated</span> at {} · {seed} of {test}</h1>",
            escape(&violation.invariant),
            seconds(violation.at_us)
        ),
        None => writeln!(
            page,
            "<h1><span class=\"good\">held</span> · {seed} of {test}</h1>"
        ),
    };
    let _ = writeln!(page, "<p class=\"soft\">{}</p>", escape(&summary(record)));
    if let Some(bug) = bug {
        let _ = writeln!(
            page,
            "<p><b>The bug is not in the tree.</b> This run is of a copy into which it was put back: {}. \
             On the tree itself the lines below pass.</p>",
            escape(bug)
        );
    }
    if let Some(violation) = &record.violation {
        let message = clip(&violation.message, MESSAGE);
        let _ = writeln!(page, "<pre>{}</pre>", escape(&message));
    }
    for (what, line) in [
        ("as the seed draws it", replay_line(record)),
        ("exactly these events", replay_plan_line(record, "…/")),
    ] {
        let _ = writeln!(
            page,
            "<div class=\"replay\"><span>{what}</span><code>{}</code>\
             <button data-copy>copy</button></div>",
            escape(&line)
        );
    }
    violating(page, record);
    page.push_str("<div class=\"two\">\n<details open><summary>Drawn options</summary>\n");
    options(page, record);
    page.push_str("</details>\n");
    events(page, record, view);
    page.push_str("</div>\n");
    page.push_str(HELP);
}

const HELP: &str = "<details><summary>How to read the picture</summary>\n\
<p><b>Time</b> runs from left to right. Wheel: zoom at the pointer. Drag: move. Over the names on the \
left, or with Shift, the wheel scrolls. Keys: ← → + − 0 (whole run) v (violation). A click on a row of \
a table above, on a fault or on an operation leads there.</p>\n\
<p><b>A server's lane</b>: the strip on top is its role, in the colour of its term: full colour and \
white text, leader; pale, follower; hatched, candidate. Below it the line is the commit index and the \
area the applied one, on one scale for the group, stretched to what is shown. Grey and hatched: down. Small ticks at the \
bottom: starts (green), votes, snapshots and other rare events. A tint over a lane is a fault that \
hits this server.</p>\n\
<p><b>A shard's lane</b>: in full colour, the group that serves it; pale and hatched, a group that \
holds it without serving (arriving, frozen, held). Two full colours at one moment must never be.</p>\n\
<p><b>A client's lane</b>: an operation from call to answer, reads grey, writes blue; one that fades \
out was never answered, so it may have taken effect at any later moment or never; red belongs to the \
violation.</p></details>\n";

fn summary(record: &Record) -> String {
    let mut groups = std::collections::BTreeMap::new();
    for server in &record.servers {
        *groups.entry(server.group).or_insert(0) += 1;
    }
    let controllers = groups.remove(&0).unwrap_or(0);
    let mut sizes: Vec<String> = groups.values().map(|n: &i32| n.to_string()).collect();
    sizes.dedup();
    let answered = record.operations.iter().filter(|o| o.returned_us.is_some());
    let mut text = format!(
        "{} simulated · {controllers} controllers, {} of {} · {} operations, {} answered · {} fault events",
        seconds(record.end_us),
        match groups.len() {
            1 => "1 group".into(),
            n => format!("{n} groups"),
        },
        sizes.join(" or "),
        record.operations.len(),
        answered.count(),
        record.plan.events.len(),
    );
    for (family, times) in &record.summary.faults {
        let _ = write!(text, " · {family} {times}");
    }
    if let Some(at) = record.healed_us {
        let _ = write!(text, " · healed at {}", seconds(at));
    }
    text
}

fn seconds(us: u64) -> String {
    format!("{}.{:03} s", us / 1_000_000, us / 1000 % 1000)
}

fn options(page: &mut String, record: &Record) {
    page.push_str("<dl class=\"options\">\n");
    for (name, value) in super::options(&record.plan) {
        let value = clip(&value, CELL);
        let _ = writeln!(
            page,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(&name),
            escape(&value)
        );
    }
    page.push_str("</dl>\n");
}

/// The plan's events; a row is tied to the band that carried it out.
fn events(page: &mut String, record: &Record, view: &View) {
    let count = record.plan.events.len();
    let _ = writeln!(
        page,
        "<details open><summary>Fault events ({count})</summary>\n<div class=\"scroll\"><table>\n\
         <tr><th>#</th><th>at (s)</th><th>for (s)</th><th>family</th><th>what</th></tr>"
    );
    for (place, event) in record.plan.events.iter().take(ROWS).enumerate() {
        let bands = || view.bands.iter().filter(|b| b.event == place);
        let carried_out = bands()
            .map(|b| b.from)
            .min()
            .zip(bands().map(|b| b.to).max());
        let link = match carried_out {
            Some((from, to)) => format!(" data-from=\"{from}\" data-to=\"{to}\""),
            None => String::new(),
        };
        let debug = format!("{:?}", event.fault);
        let what = words(&debug);
        let mut told: Vec<&str> = bands().map(|b| b.text.as_str()).collect();
        told.dedup();
        told.retain(|text| *text != what);
        let told = match told.first() {
            Some(text) => format!("<br><span class=\"soft\">{}</span>", escape(text)),
            None => String::new(),
        };
        let family = event.fault.family();
        // When it was carried out, as in the picture; the plan counts from the first operation on.
        let drawn = (event.at_ms as f64 / 1e3, event.for_ms as f64 / 1e3);
        let (at, lasts, planned) = match carried_out {
            Some((from, to)) => (
                from as f64 / 1e6,
                (to - from) as f64 / 1e6,
                format!(
                    "<br><span class=\"soft\">planned: {:.3} s after the start, for {:.3} s</span>",
                    drawn.0, drawn.1
                ),
            ),
            None => (
                drawn.0,
                drawn.1,
                "<br><span class=\"soft\">as planned, after the start; it came to nothing</span>"
                    .into(),
            ),
        };
        let _ = writeln!(
            page,
            "<tr data-event=\"{place}\"{link}><td class=\"number\">{place}</td>\
             <td class=\"number\">{at:.3}</td><td class=\"number\">{lasts:.3}</td>\
             <td><span class=\"chip\" data-family=\"{family}\"></span>{family}</td>\
             <td class=\"mono long\">{}{told}{planned}</td></tr>",
            escape(&clip(&what, CELL)),
        );
    }
    page.push_str("</table></div>\n");
    if count > ROWS {
        let _ = writeln!(page, "<p class=\"soft\">and {} more</p>", count - ROWS);
    }
    page.push_str("<p class=\"legend\">");
    let known = FAMILIES
        .iter()
        .filter(|f| view.bands.iter().any(|b| b.family == **f));
    for family in known {
        let _ = write!(
            page,
            "<span><span class=\"chip\" data-family=\"{family}\"></span>{family}</span>"
        );
    }
    page.push_str("</p></details>\n");
}

fn violating(page: &mut String, record: &Record) {
    let count = record.operations.iter().filter(|o| o.violating).count();
    if count == 0 {
        return;
    }
    let _ = writeln!(
        page,
        "<details open><summary>Operations of the violation ({count})</summary>\n\
         <div class=\"scroll\"><table class=\"narrow\">\n<tr><th>called</th><th>answered</th><th>client</th><th>key</th>\
         <th>shard</th><th>call</th><th>answer</th></tr>"
    );
    let operations = record.operations.iter().filter(|o| o.violating);
    for operation in operations.take(ROWS) {
        let answered = operation.returned_us;
        let cell = |text: &str| escape(&clip(text, CELL));
        let _ = writeln!(
            page,
            "<tr data-from=\"{}\" data-to=\"{}\" data-key=\"{}\"><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"mono\">{}</td>\
             <td class=\"number\">{}</td><td class=\"mono long\">{}</td><td class=\"mono long\">{}</td></tr>",
            operation.called_us,
            answered.unwrap_or(operation.called_us),
            escape(&clip(&operation.key, view::KEY)),
            seconds(operation.called_us),
            answered.map_or("never".into(), seconds),
            operation.client,
            cell(&operation.key),
            operation.shard,
            cell(&operation.call),
            cell(&operation.answer),
        );
    }
    page.push_str("</table></div></details>\n");
}

fn controls(page: &mut String, record: &Record, view: &View) {
    page.push_str("<nav><button id=\"all\">whole run</button>");
    if record.violation.is_some() {
        page.push_str("<button id=\"violation\">around the violation: 1 s</button>");
        page.push_str("<button id=\"near\">0.1 s</button>");
    }
    if record.healed_us.is_some() {
        page.push_str("<button id=\"heal\">around the healing</button>");
    }
    if !view.clients.is_empty() {
        page.push_str("<label>only key <input id=\"key\" size=\"14\"></label>");
        if record.operations.iter().any(|o| o.violating) {
            page.push_str(
                "<label><input type=\"checkbox\" id=\"only\"> only keys of the violation</label>",
            );
        }
    }
    page.push_str("<span class=\"soft\">wheel: zoom · drag: move · hover: details</span>");
    page.push_str("<button id=\"theme\">light / dark</button></nav>\n");
}

#[cfg(test)]
mod tests {
    use super::super::demo;
    use super::*;

    fn data(page: &str) -> serde_json::Value {
        let (_, rest) = page
            .split_once("<script id=\"data\" type=\"application/json\">")
            .expect("data");
        let (json, _) = rest.split_once("</script>").expect("an end");
        serde_json::from_str(json).expect("json")
    }

    #[test]
    fn everything_is_on_the_page() {
        let record = demo::record();
        let page = page(&record, None);
        let data = data(&page);
        let count = |name: &str| data[name].as_array().map_or(0, Vec::len);
        assert_eq!(
            (count("servers"), count("shards"), count("clients")),
            (12, 6, 5)
        );
        assert_eq!(count("bands"), record.bands.len());
        assert_eq!(
            (&data["healed"], &data["violated"]),
            (&46_000_000.into(), &48_000_000.into())
        );
        let operations = data["clients"].as_array().expect("clients").iter();
        let operations: usize = operations
            .map(|c| c["operations"].as_array().map_or(0, Vec::len))
            .sum();
        assert_eq!(operations, record.operations.len());
        let leaders = record
            .points
            .iter()
            .filter(|p| p.kind == "role" && lanes::field(p, "role") == Some(3));
        let roles = data["servers"].as_array().expect("servers").iter();
        let roles = roles.flat_map(|s| s["roles"].as_array().expect("roles"));
        assert_eq!(roles.filter(|r| r["role"] == 3).count(), leaders.count());
        for part in [
            "I8 violated",
            "MADSIM_TEST_SEED=7 cargo test",
            "client 4 get",
            "PowerCut",
            "pause_ms",
        ] {
            assert!(page.contains(part), "no {part}");
        }
    }

    #[test]
    fn nothing_of_a_run_becomes_markup() {
        let page = page(&demo::record(), None);
        assert!(!page.contains("<script>alert(1)") && !page.contains("</script><b>"));
        assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
        // The page's own: data, program.
        assert_eq!(page.matches("</script").count(), 2);
        assert_eq!(page.matches("<script").count(), 2);
        assert!(!page.contains("http:") && !page.contains("https:"));
    }

    #[test]
    fn the_same_record_gives_the_same_page() {
        assert_eq!(page(&demo::record(), None), page(&demo::record(), None));
    }

    #[test]
    fn a_power_cut_is_a_gap_in_every_lane() {
        let data = data(&page(&demo::record(), None));
        for server in data["servers"].as_array().expect("servers") {
            let cut = serde_json::json!([23_000_000, 26_000_000, true]);
            assert_eq!(server["down"], serde_json::json!([cut]));
            let inside = |r: &&serde_json::Value| {
                r["from"].as_u64() < Some(26_000_000) && r["to"].as_u64() > Some(23_000_000)
            };
            assert_eq!(
                server["roles"]
                    .as_array()
                    .expect("roles")
                    .iter()
                    .filter(inside)
                    .count(),
                0
            );
        }
    }

    #[test]
    fn a_moved_shard_never_has_two_servers() {
        let data = data(&page(&demo::record(), None));
        let holdings = data["shards"][0]["holdings"].as_array().expect("holdings");
        let serving: Vec<_> = holdings.iter().filter(|h| h["accepts"] == true).collect();
        let groups: Vec<_> = serving
            .iter()
            .map(|h| h["group"].as_u64().expect("a group"))
            .collect();
        assert_eq!(groups, [1, 1, 3, 3, 1]);
        assert!(
            serving
                .windows(2)
                .all(|w| w[0]["to"].as_u64() <= w[1]["from"].as_u64())
        );
        assert_eq!(data["shards"][0]["rows"], 2);
    }

    #[test]
    fn a_long_run_stays_below_the_limit_and_keeps_what_matters() {
        let mut record = demo::record();
        let template = record.operations[0].clone();
        for i in 0..60_000u64 {
            let mut more = template.clone();
            more.called_us = 3_000_000 + i * 800;
            more.returned_us = Some(more.called_us + 100);
            more.answer = "a long answer ".repeat(40);
            record.operations.push(more);
        }
        for i in 0..100_000u64 {
            let mut more = record.points[20].clone();
            (more.at_us, more.kind) = (i * 600, "commit".into());
            more.fields = vec![("index".into(), i)];
            record.points.push(more);
        }
        record.points.sort_by_key(|p| p.at_us);
        record.violation.as_mut().expect("violated").message = "x<".repeat(1 << 20);
        let page = page(&record, None);
        assert!(page.len() <= LIMIT, "{} bytes", page.len());
        let data = data(&page);
        assert!(data["hidden"].as_u64() > Some(40_000));
        let operations = data["clients"].as_array().expect("clients").iter();
        let bad = operations.flat_map(|c| c["operations"].as_array().expect("operations"));
        assert_eq!(bad.filter(|o| o["bad"] == true).count(), 2);
        assert_eq!(data["shards"].as_array().map(Vec::len), Some(6));
    }

    #[test]
    fn an_empty_record_has_a_page() {
        let page = page(&Record::default(), None);
        assert!(page.contains("held"));
        assert_eq!(data(&page)["servers"], serde_json::json!([]));
    }
}
