//! The table: judging, storing, pruning, making room.

use super::row::{
    REPLY, ReplyRow, SESSION, Session, SessionRow, TABLE, TableRow, decode, encode, signed,
};
use super::{
    EXPIRY_MS, MAX_REPLY, MAX_SESSIONS, MAX_TABLE_BYTES, MIN_IDLE_MS, Refusal, Seq, Verdict,
    WINDOW_BYTES, WINDOW_REPLIES,
};
use crate::machine::At;
use crate::store::{Rows, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Session rows read at a time while the cache is filled.
const LOAD_ROWS: usize = 512;

/// A session table kept in rows whose keys start with `prefix`. The rows hold everything; what
/// the value keeps beside them is a cache (at most [`MAX_SESSIONS`] small records), filled on
/// first use and dropped by [`Table::clear_cache`].
pub struct Table {
    /// Row prefix.
    pub prefix: Vec<u8>,
    cache: Option<Cache>,
    dropped: Vec<u64>,
}

/// The session rows, decoded.
struct Cache {
    sessions: BTreeMap<u64, Session>,
    /// Bytes of all stored replies.
    bytes: u64,
    /// No session was active before this log time: spares the search for expired ones.
    oldest_ms: i64,
}

impl Table {
    /// The table under a prefix.
    pub fn new(prefix: &[u8]) -> Table {
        Table {
            prefix: prefix.to_vec(),
            cache: None,
            dropped: Vec::new(),
        }
    }

    /// Sessions that the last call dropped: their writes are refused from now on.
    pub fn dropped(&self) -> &[u64] {
        &self.dropped
    }

    /// Forgets what is cached: after the rows were changed by others (a snapshot, a shard that
    /// arrived).
    pub fn clear_cache(&mut self) {
        self.cache = None;
    }

    /// Opens a session and returns its id, or refuses as busy.
    pub fn open(&mut self, rows: &mut Rows, at: At) -> Result<Result<u64, Refusal>, StoreError> {
        self.dropped.clear();
        self.load(rows)?;
        if !self.make_room(rows, at, 1, None)? {
            return Ok(Err(Refusal::Busy));
        }
        let key = self.key(TABLE, &[]);
        let id = match rows.get(&key)? {
            Some(value) => {
                let TableRow::V1 { next } = decode(rows, &key, &value)?;
                next
            }
            None => 1,
        };
        rows.put(&key, &encode(&TableRow::V1 { next: id + 1 }))?;
        let session = Session {
            last: 0,
            acked: 0,
            active_ms: signed(at.time_ms),
            closed: false,
            bytes: 0,
        };
        self.write(rows, id, session)?;
        Ok(Ok(id))
    }

    /// Closes a session (it goes first under pressure).
    pub fn close(&mut self, rows: &mut Rows, session: u64) -> Result<(), StoreError> {
        if let Some(mut state) = self.session(rows, session)? {
            state.closed = true;
            self.write(rows, session, state)?;
        }
        Ok(())
    }

    /// Judges a write, after pruning by its `acked`. After `Execute` nothing has changed yet: the
    /// machine may still refuse the write, and nothing is consumed unless it calls
    /// [`Table::store`].
    pub fn judge(&mut self, rows: &mut Rows, at: At, seq: Seq) -> Result<Verdict, StoreError> {
        self.dropped.clear();
        if seq.acked >= seq.seq {
            return Ok(Verdict::Refused(Refusal::Malformed));
        }
        let Some(session) = self.session(rows, seq.session)? else {
            world::mark!("session: unknown");
            return Ok(Verdict::Refused(Refusal::SessionExpired));
        };
        if seq.seq <= session.acked {
            world::mark!("session: a stale number");
            return Ok(Verdict::Refused(Refusal::Stale));
        }
        if seq.seq - 1 > session.last {
            world::mark!("session: a gap");
            return Ok(Verdict::Refused(Refusal::Gap(session.last)));
        }
        if seq.seq <= session.last {
            world::mark!("session: the stored reply is given again");
            self.prune(rows, at, seq)?;
            let key = self.reply_key(seq.session, seq.seq);
            let Some(value) = rows.get(&key)? else {
                return Err(rows.damaged(format_args!("no reply under {key:02x?}")));
            };
            let ReplyRow::V1(reply) = decode(rows, &key, &value)?;
            return Ok(Verdict::Repeat(reply));
        }
        if session.last - session.acked.max(seq.acked) >= WINDOW_REPLIES {
            world::mark!("session: its window is full");
            self.prune(rows, at, seq)?;
            return Ok(Verdict::Refused(Refusal::Window));
        }
        // Only where stored bytes come near a limit it matters how many this write's `acked`
        // sets free: then prune at once and look again.
        let window = session.bytes >= WINDOW_BYTES as u64;
        if window || self.bytes() >= MAX_TABLE_BYTES as u64 {
            let session = self.prune(rows, at, seq)?;
            if session.bytes >= WINDOW_BYTES as u64 {
                return Ok(Verdict::Refused(Refusal::Window));
            }
            if !self.make_room(rows, at, 0, Some(seq.session))? {
                return Ok(Verdict::Refused(Refusal::Busy));
            }
        }
        Ok(Verdict::Execute)
    }

    /// Stores the reply (at most [`MAX_REPLY`]) of the write just executed.
    pub fn store(
        &mut self,
        rows: &mut Rows,
        at: At,
        seq: Seq,
        reply: &Bytes,
    ) -> Result<(), StoreError> {
        debug_assert!(reply.len() <= MAX_REPLY, "a reply of {} bytes", reply.len());
        let Some(mut session) = self.session(rows, seq.session)? else {
            return Err(rows.damaged("a reply for a session that does not exist"));
        };
        if seq.seq != session.last + 1 {
            return Err(rows.damaged(format_args!(
                "a reply for write {} of a session at {}",
                seq.seq, session.last
            )));
        }
        self.forget_replies(rows, seq.session, &mut session, seq.acked)?;
        // Its number is the next one: no reply stands there.
        let key = self.reply_key(seq.session, seq.seq);
        let row = encode(&ReplyRow::V1(reply.clone()));
        rows.known(key.into(), None).set(row.into());
        session.last = seq.seq;
        session.bytes += reply.len() as u64;
        session.active_ms = signed(at.time_ms);
        self.write(rows, seq.session, session)
    }

    /// Drops sessions idle for more than an hour, the longest idle first; at most `max` of them;
    /// called by commands now and then. Costs nothing while none can be.
    pub fn expire(&mut self, rows: &mut Rows, at: At, max: usize) -> Result<(), StoreError> {
        self.dropped.clear();
        let expired = |active: i64| signed(at.time_ms).saturating_sub(active) > EXPIRY_MS as i64;
        let cache = self.load(rows)?;
        if !expired(cache.oldest_ms) {
            return Ok(());
        }
        let mut found: Vec<(i64, u64)> = cache
            .sessions
            .iter()
            .filter(|(_, session)| expired(session.active_ms))
            .map(|(id, session)| (session.active_ms, *id))
            .collect();
        found.sort_unstable();
        for (_, id) in found.iter().take(max) {
            world::mark!("session: dropped after an hour");
            self.remove(rows, *id)?;
        }
        if let Some(cache) = &mut self.cache {
            let oldest = cache
                .sessions
                .values()
                .map(|session| session.active_ms)
                .min();
            cache.oldest_ms = oldest.unwrap_or(signed(at.time_ms));
        }
        Ok(())
    }

    /// Number of sessions.
    pub fn sessions(&mut self, rows: &Rows) -> Result<usize, StoreError> {
        Ok(self.load(rows)?.sessions.len())
    }

    /// Bytes of all stored replies.
    pub fn reply_bytes(&mut self, rows: &Rows) -> Result<u64, StoreError> {
        Ok(self.load(rows)?.bytes)
    }

    /// Makes room for `more` sessions and for another reply: drops closed sessions, then the
    /// longest idle, never one idle for less than a minute, nor `keep`. False when that is not
    /// enough.
    fn make_room(
        &mut self,
        rows: &mut Rows,
        at: At,
        more: usize,
        keep: Option<u64>,
    ) -> Result<bool, StoreError> {
        loop {
            let cache = self.load(rows)?;
            let crowded = more > 0 && cache.sessions.len() + more > MAX_SESSIONS;
            let heavy = cache.bytes >= MAX_TABLE_BYTES as u64;
            if !crowded && !heavy {
                return Ok(true);
            }
            let victim = cache
                .sessions
                .iter()
                .filter(|(id, session)| {
                    (session.closed || session.idle_ms(at.time_ms) >= MIN_IDLE_MS as i64)
                        && keep != Some(**id)
                        // Where bytes are the trouble, a session without any is no help.
                        && (crowded || session.bytes > 0)
                })
                .min_by_key(|(id, session)| (!session.closed, session.active_ms, **id))
                .map(|(id, _)| *id);
            match victim {
                Some(id) => {
                    world::mark!("session: dropped to make room");
                    self.remove(rows, id)?;
                }
                None => return Ok(false),
            }
        }
    }

    /// Takes a write's `acked` in, and that the client lives.
    fn prune(&mut self, rows: &mut Rows, at: At, seq: Seq) -> Result<Session, StoreError> {
        let Some(mut session) = self.session(rows, seq.session)? else {
            return Err(rows.damaged("pruning a session that does not exist"));
        };
        self.forget_replies(rows, seq.session, &mut session, seq.acked)?;
        session.active_ms = signed(at.time_ms);
        self.write(rows, seq.session, session.clone())?;
        Ok(session)
    }

    /// Deletes the replies through `acked`; the caller writes the session.
    fn forget_replies(
        &self,
        rows: &mut Rows,
        id: u64,
        session: &mut Session,
        acked: u64,
    ) -> Result<(), StoreError> {
        let acked = acked.min(session.last);
        for seq in session.acked + 1..=acked {
            let key = self.reply_key(id, seq);
            let Some(value) = rows.take(&key)? else {
                return Err(rows.damaged(format_args!("no reply under {key:02x?}")));
            };
            let ReplyRow::V1(reply) = decode(rows, &key, &value)?;
            session.bytes = session.bytes.saturating_sub(reply.len() as u64);
        }
        session.acked = session.acked.max(acked);
        Ok(())
    }

    fn remove(&mut self, rows: &mut Rows, id: u64) -> Result<(), StoreError> {
        if let Some(mut session) = self.session(rows, id)? {
            let last = session.last;
            self.forget_replies(rows, id, &mut session, last)?;
        }
        rows.delete(&self.key(SESSION, &id.to_be_bytes()))?;
        let cache = self.load(rows)?;
        if let Some(gone) = cache.sessions.remove(&id) {
            cache.bytes -= gone.bytes;
        }
        self.dropped.push(id);
        Ok(())
    }

    fn session(&mut self, rows: &Rows, id: u64) -> Result<Option<Session>, StoreError> {
        Ok(self.load(rows)?.sessions.get(&id).cloned())
    }

    fn write(&mut self, rows: &mut Rows, id: u64, session: Session) -> Result<(), StoreError> {
        let key = self.key(SESSION, &id.to_be_bytes());
        let cache = self.load(rows)?;
        cache.bytes += session.bytes;
        cache.oldest_ms = cache.oldest_ms.min(session.active_ms);
        let row = SessionRow::V1(session);
        rows.entry(key.into())?.set(encode(&row).into());
        let SessionRow::V1(session) = row;
        if let Some(old) = cache.sessions.insert(id, session) {
            cache.bytes -= old.bytes;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.cache.as_ref().map_or(0, |cache| cache.bytes)
    }

    fn load(&mut self, rows: &Rows) -> Result<&mut Cache, StoreError> {
        if self.cache.is_none() {
            let mut cache = Cache {
                sessions: BTreeMap::new(),
                bytes: 0,
                oldest_ms: i64::MAX,
            };
            let mut from = self.key(SESSION, &[]);
            let to = self.key(SESSION + 1, &[]);
            loop {
                let found = rows.range(&from, &to, LOAD_ROWS, usize::MAX)?;
                for (key, value) in &found {
                    let id = key[self.prefix.len() + 1..]
                        .try_into()
                        .map(u64::from_be_bytes)
                        .map_err(|_| rows.damaged(format_args!("session key {key:02x?}")))?;
                    let SessionRow::V1(session) = decode(rows, key, value)?;
                    cache.bytes += session.bytes;
                    cache.oldest_ms = cache.oldest_ms.min(session.active_ms);
                    cache.sessions.insert(id, session);
                }
                match found.last() {
                    Some((key, _)) => from = [key, &[0][..]].concat(),
                    None => break,
                }
            }
            self.cache = Some(cache);
        }
        Ok(self.cache.as_mut().expect("filled above"))
    }

    fn key(&self, kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 1 + rest.len());
        key.extend_from_slice(&self.prefix);
        key.push(kind);
        key.extend_from_slice(rest);
        key
    }

    fn reply_key(&self, session: u64, seq: u64) -> Vec<u8> {
        let mut key = self.key(REPLY, &session.to_be_bytes());
        key.extend_from_slice(&seq.to_be_bytes());
        key
    }
}
