//! What can happen to a cluster, as values.

use serde::{Deserialize, Serialize};

/// A server of a group; 0 is the controllers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The group.
    pub group: u64,
    /// Which of its members, as it is when the event begins.
    pub member: Member,
}

/// Which member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Member {
    /// This one.
    Node(u64),
    /// The leader of the highest term seen; node 1 when there was none.
    Leader,
    /// The n-th that is not the leader.
    Follower(u64),
}

/// How a server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// The machine's power fails: un-synced data may be lost or torn.
    Power,
    /// The process dies; what it wrote survives.
    Process,
    /// It is asked to stop, and does.
    Graceful,
}

/// Where messages are mistreated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Every frame.
    All,
    /// Between members of a group.
    Members,
    /// Between groups.
    Groups,
    /// From and to clients.
    Clients,
}

/// Operations of a disk that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskOp {
    /// Reads.
    Read,
    /// Writes and changes of length.
    Write,
    /// Syncs of files and directories. What was not synced is dropped, and the next sync says Ok.
    Sync,
    /// Creating, renaming, removing.
    Name,
}

/// A part of a server's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Segments of the log.
    Log,
    /// Generations of the state.
    State,
    /// Any file.
    Any,
}

/// Moments that an event can wait for: something that a member tells while it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// It has become leader.
    Leads,
    /// It asks for votes.
    Stands,
    /// It gives its vote.
    Votes,
    /// It hands a numbered write to its log.
    Writes,
    /// Its write is synced.
    Synced,
    /// It acknowledges entries.
    Acknowledges,
    /// It learns that an entry is committed.
    Commits,
    /// A shard's state changes in it.
    Shard,
    /// It installs a snapshot.
    Installs,
    /// It is about to switch to one, and to begin its log afresh behind it.
    Resets,
    /// It cuts its log.
    Compacts,
    /// It begins to recover.
    Starts,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A server is cut off from everybody.
    Isolate(Who),
    /// A server hears nobody, or nobody hears it.
    OneWay {
        /// The server.
        who: Who,
        /// It still hears; nobody hears it.
        hears: bool,
    },
    /// A group falls into two sides; bit n of `side` set: node n + 1 is on the second.
    Split {
        /// The group.
        group: u64,
        /// Who is on the second side.
        side: u64,
    },
    /// All servers fall into two sides, by the bits of `side` in the order of groups and members.
    SplitAll {
        /// Who is on the second side.
        side: u64,
    },
    /// Two members of a group do not hear each other; the others hear both.
    Bridge {
        /// The group.
        group: u64,
        /// One.
        a: u64,
        /// The other.
        b: u64,
    },
    /// Each member hears only its two neighbours in a ring.
    Ring {
        /// The group.
        group: u64,
    },
    /// A server is cut off and heard again, over and over.
    Flap {
        /// The server.
        who: Who,
        /// Half a period (ms).
        every_ms: u64,
    },
    /// A subset is cut off one by one and healed in another order.
    Swizzle {
        /// The group.
        group: u64,
        /// Pause between two steps (ms).
        every_ms: u64,
    },
    /// Frames are mistreated, each on its own. In millionths.
    Messages {
        /// Which frames.
        scope: Scope,
        /// It vanishes.
        drop_ppm: u64,
        /// It comes twice.
        duplicate_ppm: u64,
        /// It comes late,
        delay_ppm: u64,
        /// by up to this (ms).
        latest_ms: u64,
        /// The connection breaks before it.
        reset_ppm: u64,
        /// One of its bits is flipped on the way.
        #[serde(default)]
        flip_ppm: u64,
    },
    /// Every frame between two members takes longer.
    SlowLink {
        /// The group.
        group: u64,
        /// One.
        a: u64,
        /// The other.
        b: u64,
        /// So much (ms).
        by_ms: u64,
    },
    /// Every message of the network takes up to this (ms).
    Latency {
        /// Most (ms).
        most_ms: u64,
    },
    /// What a server sends and is sent vanishes, while its connections stay open.
    HalfOpen(Who),
    /// What a server sends clients vanishes, while its connections stay open; the servers hear each other.
    CutFromClients {
        /// The server.
        who: Who,
        /// It still hears the clients.
        hears: bool,
    },
    /// A server goes down, and comes back when the event ends.
    Down {
        /// The server.
        who: Who,
        /// How.
        how: Down,
    },
    /// Power fails everywhere; back when the event ends.
    PowerCut,
    /// A server stands still and goes on when the event ends.
    Pause(Who),
    /// A server gets little of its processor: it stands still and goes on, over and over.
    Stutter {
        /// The server.
        who: Who,
        /// Still for so long (ms),
        still_ms: u64,
        /// then running for so long (ms).
        goes_ms: u64,
    },
    /// A server goes down and comes back, several times.
    CrashLoop {
        /// The server.
        who: Who,
        /// How often.
        times: u64,
    },
    /// The members of a group restart one after the other.
    Rolling {
        /// The group.
        group: u64,
    },
    /// The first member of the group that tells of this moment (after `skip` others did) loses its
    /// power then; it comes back 300 ms later. Nothing when the moment does not come in time.
    PowerOffWhen {
        /// The group.
        group: u64,
        /// The moment.
        moment: Moment,
        /// So many are let pass.
        skip: u64,
    },
    /// The first member of the group that tells of this moment (after `skip` others did) stands
    /// still then, for `still_ms`.
    PauseWhen {
        /// The group.
        group: u64,
        /// The moment.
        moment: Moment,
        /// So many are let pass.
        skip: u64,
        /// For so long (ms).
        still_ms: u64,
    },
    /// Power fails inside the n-th change of the server's disk from now on; back 300 ms later.
    PowerOffInside {
        /// The server.
        who: Who,
        /// Which change.
        nth: u64,
    },
    /// The first member of the group that tells of this moment (after `skip` others did) loses its
    /// power inside the n-th change of its disk behind it.
    PowerOffInsideWhen {
        /// The group.
        group: u64,
        /// The moment.
        moment: Moment,
        /// So many are let pass.
        skip: u64,
        /// Which change.
        nth: u64,
    },
    /// Each new leader of the group goes down as soon as its first entry is on its own disk, or as
    /// soon as it has committed something (by the seed, half and half), and comes back `back_ms` later, while the event lasts (the schedule of figure 8).
    LeaderChain {
        /// The group.
        group: u64,
        /// Down for so long (ms).
        back_ms: u64,
    },
    /// A server loses its disk and comes back with an empty one under the same id.
    EmptyDisk(Who),
    /// A server comes back with its disk as it was when the event began.
    OldDisk(Who),
    /// A bit flips in a file while the server is down; it comes back when the event ends.
    Rot {
        /// The server.
        who: Who,
        /// Which files.
        part: Part,
        /// Which byte and bit, taken modulo the size.
        at: u64,
    },
    /// A block holds another block's content, or its own before the last sync, while the server is
    /// down.
    WrongBlock {
        /// The server.
        who: Who,
        /// Which files.
        part: Part,
        /// Which block, modulo the number of blocks.
        at: u64,
        /// Its own older content; otherwise another block's.
        stale: bool,
    },
    /// A file is gone, or empty, while the server is down.
    LostFile {
        /// The server.
        who: Who,
        /// Which files.
        part: Part,
        /// Which of them, modulo their number.
        at: u64,
        /// It is there, without content.
        empty: bool,
    },
    /// The n-th operation of a kind fails; the server stops and is started again when the event
    /// ends.
    DiskError {
        /// The server.
        who: Who,
        /// Kind of operation.
        op: DiskOp,
        /// Which one from now on (1: the next).
        nth: u64,
    },
    /// The disk has so many bytes left.
    DiskFull {
        /// The server.
        who: Who,
        /// Bytes.
        left: u64,
    },
    /// The disk's jobs stall for 100 to 500 ms, each with this probability (percent).
    DiskStall {
        /// The server.
        who: Who,
        /// Percent.
        percent: u64,
    },
    /// The server's clock runs fast (or slow, below 0) by so many parts per million.
    ClockRate {
        /// The server.
        who: Who,
        /// Parts per million.
        ppm: i64,
    },
    /// The server's clock jumps ahead.
    ClockJump {
        /// The server.
        who: Who,
        /// By so much (ms).
        by_ms: u64,
    },
    /// A shard is pinned to a group.
    Move {
        /// The shard.
        shard: u32,
        /// The group.
        group: u64,
    },
    /// Groups join.
    Join(Vec<u64>),
    /// Groups leave. When one has handed over everything, it may be shut down for good.
    Leave {
        /// The groups.
        groups: Vec<u64>,
        /// Shut down those that have handed over, until they join again.
        shutdown: bool,
    },
    /// A shard goes back and forth between two groups, faster than the old copies are deleted.
    BackAndForth {
        /// The shard.
        shard: u32,
        /// One.
        a: u64,
        /// The other.
        b: u64,
        /// Pause between two moves (ms).
        every_ms: u64,
    },
}

impl Fault {
    /// The family it belongs to.
    pub fn family(&self) -> &'static str {
        use Fault::*;
        match self {
            Isolate(_)
            | OneWay { .. }
            | Split { .. }
            | SplitAll { .. }
            | Bridge { .. }
            | Ring { .. }
            | Flap { .. }
            | Swizzle { .. } => "partition",
            Messages { .. }
            | SlowLink { .. }
            | Latency { .. }
            | HalfOpen(_)
            | CutFromClients { .. } => "messages",
            Down { .. }
            | PowerCut
            | Pause(_)
            | Stutter { .. }
            | CrashLoop { .. }
            | Rolling { .. } => "process",
            PowerOffWhen { .. }
            | PauseWhen { .. }
            | PowerOffInside { .. }
            | PowerOffInsideWhen { .. }
            | LeaderChain { .. } => "moment",
            EmptyDisk(_) | OldDisk(_) | Rot { .. } | WrongBlock { .. } | LostFile { .. } => {
                "damage"
            }
            DiskError { .. } | DiskFull { .. } | DiskStall { .. } => "disk",
            ClockRate { .. } | ClockJump { .. } => "clock",
            Move { .. } | Join(_) | Leave { .. } | BackAndForth { .. } => "shards",
        }
    }

    /// Whether a group of stores, its clients, or what it owns may feel it. (A move may be told to
    /// leave a group's shards alone, and what it is given besides takes nothing from them.)
    pub fn touches(&self, spared: u64) -> bool {
        use Fault::*;
        match self {
            Isolate(who) | HalfOpen(who) | Pause(who) | EmptyDisk(who) | OldDisk(who) => {
                who.group == spared
            }
            OneWay { who, .. }
            | CutFromClients { who, .. }
            | Flap { who, .. }
            | Down { who, .. }
            | Stutter { who, .. }
            | CrashLoop { who, .. }
            | PowerOffInside { who, .. }
            | Rot { who, .. }
            | WrongBlock { who, .. }
            | LostFile { who, .. }
            | DiskError { who, .. }
            | DiskFull { who, .. }
            | DiskStall { who, .. }
            | ClockRate { who, .. }
            | ClockJump { who, .. } => who.group == spared,
            Split { group, .. }
            | Bridge { group, .. }
            | Ring { group }
            | Swizzle { group, .. }
            | SlowLink { group, .. }
            | Rolling { group }
            | PowerOffWhen { group, .. }
            | PowerOffInsideWhen { group, .. }
            | PauseWhen { group, .. }
            | LeaderChain { group, .. } => *group == spared,
            Move { .. } | BackAndForth { .. } => false,
            SplitAll { .. } | Messages { .. } | Latency { .. } | PowerCut => true,
            // The shards of all groups may change hands.
            Join(_) | Leave { .. } => true,
        }
    }

    /// Its name, without details.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        let end = text.find([' ', '(', '{']).unwrap_or(text.len());
        text[..end].to_owned()
    }
}

/// All families.
pub const FAMILIES: &[&str] = &[
    "partition",
    "messages",
    "process",
    "moment",
    "damage",
    "disk",
    "clock",
    "shards",
];
