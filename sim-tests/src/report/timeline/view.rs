//! What the page draws, worked out from a record: lanes, segments and bars instead of points.

use super::lanes::{self, Lane};
use super::ownership::{self, ShardLane};
use super::words::words;
use crate::campaign::record::{Operation, Record};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Longest text of an operation or a fault that is shown (characters).
const TEXT: usize = 160;
/// Longest key that is shown (characters).
pub const KEY: usize = 80;
/// Rows of a client's lane; what does not fit is drawn over the last one.
const CLIENT_ROWS: usize = 6;
/// Rows of the faults.
const FAULT_ROWS: usize = 16;
/// Width of a letter as a share of the width of the page, about.
const LETTER: f64 = 6.2 / 1250.0;

/// How much of a long run is kept.
#[derive(Clone, Copy, Debug)]
pub struct Detail {
    /// A run is cut into so many pieces of time; of what moves all the time one point is kept in each.
    pub pieces: u64,
    /// Operations kept.
    pub operations: usize,
}

/// Everything the page draws. Times are µs of simulated time.
#[derive(Debug, Serialize)]
pub struct View {
    /// End of the time axis.
    pub end: u64,
    /// When faults ended.
    pub healed: Option<u64>,
    /// When the violation was noticed.
    pub violated: Option<u64>,
    /// Servers.
    pub servers: Vec<Lane>,
    /// Faults as they were carried out.
    pub bands: Vec<Bar>,
    /// Rows that the faults take.
    pub band_rows: usize,
    /// Shards.
    pub shards: Vec<ShardLane>,
    /// Clients.
    pub clients: Vec<ClientLane>,
    /// Operations that are not shown.
    pub hidden: usize,
}

/// A fault.
#[derive(Debug, Serialize)]
pub struct Bar {
    /// From.
    pub from: u64,
    /// To.
    pub to: u64,
    /// Family.
    pub family: String,
    /// For people.
    pub text: String,
    /// Places in [`View::servers`].
    pub servers: Vec<usize>,
    /// Place in the plan.
    pub event: usize,
    /// Row in which it is drawn.
    pub row: usize,
}

/// A client.
#[derive(Debug, Serialize)]
pub struct ClientLane {
    /// Its number.
    pub client: u64,
    /// Rows taken.
    pub rows: usize,
    /// Its operations.
    pub operations: Vec<Call>,
}

/// An operation.
#[derive(Debug, Serialize)]
pub struct Call {
    /// When it was called.
    pub from: u64,
    /// When it was answered.
    pub to: Option<u64>,
    /// Row.
    pub row: usize,
    /// Key.
    pub key: String,
    /// Shard.
    pub shard: u64,
    /// What was asked.
    pub call: String,
    /// What was answered.
    pub answer: String,
    /// Part of the violation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bad: bool,
}

/// A text cut to `most` characters.
pub fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Puts spans into rows so that none overlap while there are rows left; the row of each.
fn pack(spans: impl Iterator<Item = (u64, u64)>, most: usize) -> (Vec<usize>, usize) {
    let mut ends: Vec<u64> = Vec::new();
    let place = |(from, to): (u64, u64)| {
        let row = ends.iter().position(|end| *end <= from);
        let row = row.unwrap_or(ends.len()).min(most - 1);
        match ends.get_mut(row) {
            Some(end) => *end = to.max(*end),
            None => ends.push(to),
        }
        row
    };
    let rows = spans.map(place).collect();
    (rows, ends.len())
}

/// The view of a record.
pub fn view(record: &Record, detail: Detail) -> View {
    let called = record.operations.iter().map(|o| o.called_us);
    let points = record.points.iter().map(|p| p.at_us);
    let bands = record.bands.iter().map(|b| b.from_us);
    let violated = record.violation.as_ref().map(|v| v.at_us);
    let last = called.chain(points).chain(bands).chain(violated).max();
    let end = record.end_us.max(last.unwrap_or(0)).max(1);
    let operations = chosen(record, detail.operations);
    let (bands, band_rows) = bars(record, end);
    View {
        end,
        healed: record.healed_us,
        violated,
        servers: lanes::lanes(record, end, detail.pieces),
        bands,
        band_rows,
        shards: ownership::lanes(record, end),
        hidden: record.operations.len() - operations.len(),
        clients: clients(&operations, end),
    }
}

fn bars(record: &Record, end: u64) -> (Vec<Bar>, usize) {
    let mut bars: Vec<Bar> = Vec::new();
    for band in &record.bands {
        let all = record.servers.iter().enumerate();
        // Orders of an operator hit no server, and would tint them all.
        let orders = band.family == "shards";
        let hit = all.filter(|(_, s)| {
            !orders && (band.servers.is_empty() || band.servers.contains(&(s.group, s.node)))
        });
        bars.push(Bar {
            from: band.from_us,
            to: band.to_us.clamp(band.from_us, end.max(band.from_us)),
            family: band.family.clone(),
            text: clip(&words(&band.text), TEXT),
            servers: hit.map(|(place, _)| place).collect(),
            event: band.event,
            row: 0,
        });
    }
    bars.sort_by_key(|b| (b.from, b.event));
    // Room for the text behind the bar, as long as there are rows.
    let spans = bars.iter().map(|b| {
        let text = (b.text.chars().count() as f64 + 4.0) * LETTER * end as f64;
        (b.from, b.to.max(b.from + text as u64))
    });
    let (rows, count) = pack(spans, FAULT_ROWS);
    for (bar, row) in bars.iter_mut().zip(rows) {
        bar.row = row;
    }
    (bars, count)
}

/// The operations shown, in the order of their calls: those of the violation, those on its keys,
/// and an even choice of the rest.
fn chosen(record: &Record, most: usize) -> Vec<&Operation> {
    let bad = record.operations.iter().filter(|o| o.violating);
    let keys: BTreeSet<&str> = bad.map(|o| o.key.as_str()).collect();
    let rank = |o: &Operation| match (o.violating, keys.contains(o.key.as_str())) {
        (true, _) => 0,
        (_, true) => 1,
        _ => 2,
    };
    let mut ranked: [Vec<&Operation>; 3] = Default::default();
    for operation in &record.operations {
        ranked[rank(operation)].push(operation);
    }
    let mut chosen: Vec<&Operation> = Vec::new();
    for operations in ranked {
        let room = most.saturating_sub(chosen.len());
        let count = operations.len();
        let every = |i: &usize| count <= room || (i * room) / count != ((i + 1) * room) / count;
        let places = (0..count).filter(every);
        chosen.extend(places.map(|i| operations[i]));
    }
    chosen.sort_by_key(|o| (o.called_us, o.client));
    chosen
}

fn clients(operations: &[&Operation], end: u64) -> Vec<ClientLane> {
    let mut by_client: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        by_client
            .entry(operation.client)
            .or_default()
            .push(operation);
    }
    let lane = |(client, operations): (u64, Vec<&Operation>)| {
        // One without an answer takes a little room only: it goes on for ever.
        let spans = operations.iter().map(|o| {
            let to = o.returned_us.unwrap_or(o.called_us + end / 50);
            (o.called_us, to)
        });
        let (rows, count) = pack(spans, CLIENT_ROWS);
        let calls = operations.iter().zip(rows).map(|(o, row)| Call {
            from: o.called_us,
            to: o.returned_us,
            row,
            key: clip(&o.key, KEY),
            shard: o.shard,
            call: clip(&o.call, TEXT),
            answer: clip(&o.answer, TEXT),
            bad: o.violating,
        });
        ClientLane {
            client,
            rows: count,
            operations: calls.collect(),
        }
    };
    by_client.into_iter().map(lane).collect()
}
