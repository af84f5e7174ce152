//! A TCP stream with frames on it: one owner reads and writes, nothing is split or locked.

use super::frame::{self, Frame, FrameError, HEADER, Head, Kind};
use crate::clock::{Instant, now};
use bytes::{Buf, Bytes, BytesMut};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

/// Frames are gathered into one write until it has this many bytes.
const BATCH: usize = 256 << 10;

/// Bodies up to this size are copied into the batch; larger ones are written where they are.
const COPY: usize = 16 << 10;

/// Room made for one read, unless less is allowed ([`Wire::set_chunk`]).
const READ: usize = 64 << 10;

/// Room made for a read while little comes.
const FIRST_READ: usize = 4 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("closed by the other end")]
    Closed,
    #[error("nothing heard for {0:?}")]
    Silent(std::time::Duration),
    #[error("{0} in {1:?}")]
    Slow(&'static str, std::time::Duration),
    #[error("reset by the simulation")]
    Reset,
    #[error("no longer used")]
    Unused,
}

/// A TCP stream with frames on it.
pub(super) struct Wire {
    stream: TcpStream,
    max_frame: usize,
    input: BytesMut,
    /// Most that is read at once, a long frame apart, and what is read at once now.
    chunk: (usize, usize),
    /// Size of the allocation that `input` is the rest of.
    block: usize,
    /// When the incomplete frame at the front of `input` began, as far as this was noted.
    half: Option<Instant>,
    /// Frames gathered for the next write, then `body`.
    batch: BytesMut,
    /// The body of the last frame in `batch`, when too large to copy.
    body: Bytes,
    unflushed: bool,
    /// The socket took no more at the last write.
    blocked: bool,
    /// See `take_signs`.
    heard: bool,
    took: bool,
    /// Bytes that the socket took since this was last asked, and whether it once had all.
    taken: usize,
    emptied: bool,
    /// A frame was put since this was last cleared.
    pub(super) spoke: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, max_frame: usize) -> Wire {
        Wire {
            stream,
            max_frame,
            input: BytesMut::new(),
            chunk: (READ, FIRST_READ),
            block: 0,
            half: None,
            batch: BytesMut::new(),
            body: Bytes::new(),
            unflushed: false,
            blocked: false,
            heard: false,
            took: false,
            taken: 0,
            emptied: true,
            spoke: false,
        }
    }

    /// From now on accepts bodies up to this size.
    pub(super) fn set_max_frame(&mut self, bytes: usize) {
        self.max_frame = bytes;
    }

    /// From now on reads at most so many bytes at once, a long frame apart.
    pub(super) fn set_chunk(&mut self, bytes: usize) {
        self.chunk.0 = bytes.clamp(FIRST_READ, READ);
    }

    /// Bytes of memory that the buffers hold.
    pub(super) fn held(&self) -> usize {
        self.input.capacity() + self.batch.capacity() + self.body.len()
    }

    /// Bytes of memory that the next `poll_fill` takes besides.
    pub(super) fn wanted(&self) -> usize {
        self.next_block().unwrap_or_default()
    }

    /// When the frame began of which a part is here; `None` when there is no such frame.
    pub(super) fn half_since(&self) -> Option<Instant> {
        self.half
    }

    /// The time of that frame begins anew.
    pub(super) fn excuse(&mut self, at: Instant) {
        if let Some(half) = &mut self.half {
            *half = at;
        }
    }

    /// Bytes that the socket took since this was last asked, and whether it once had all there was.
    pub(super) fn take_taken(&mut self) -> (usize, bool) {
        let emptied = std::mem::take(&mut self.emptied) || !self.blocked;
        (std::mem::take(&mut self.taken), emptied)
    }

    /// Nothing came or went for a while: the buffers that are empty go.
    pub(super) fn rest(&mut self) {
        if self.input.is_empty() {
            (self.input, self.block) = (BytesMut::new(), 0);
        }
        if self.batch.is_empty() {
            self.batch = BytesMut::new();
        }
        self.chunk.1 = FIRST_READ;
    }

    /// Whether `put` may be called.
    pub(super) fn has_room(&self) -> bool {
        self.body.is_empty() && self.batch.len() < BATCH
    }

    /// Whether the socket took no more at the last write.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The peer's signs of life since this was last asked: bytes came; a socket that was full took
    /// more, which takes an acknowledgement of what was in it.
    pub(super) fn take_signs(&mut self) -> (bool, bool) {
        (
            std::mem::take(&mut self.heard),
            std::mem::take(&mut self.took),
        )
    }

    /// Gathers a frame for the next write. Needs `has_room`.
    pub(super) fn put(&mut self, head: Head, body: Bytes) {
        debug_assert!(self.has_room());
        self.spoke = true;
        self.unflushed = true;
        let small = body.len() <= COPY;
        self.batch
            .reserve(HEADER + if small { body.len() } else { 0 });
        self.batch.extend_from_slice(&frame::header(head, &body));
        if small {
            self.batch.extend_from_slice(&body);
        } else {
            self.body = body;
        }
    }

    /// As `put`, but one bit of the frame is flipped on its way.
    pub(super) fn put_flipped(&mut self, head: Head, body: &[u8], bit: u64) {
        let at = self.batch.len();
        self.put(head, Bytes::new());
        self.batch.truncate(at);
        self.batch.extend_from_slice(&frame::header(head, body));
        self.batch.extend_from_slice(body);
        let bit = (bit % ((self.batch.len() - at) as u64 * 8)) as usize;
        self.batch[at + bit / 8] ^= 1 << (bit % 8);
    }

    /// Gathers a frame without a body, when there is room.
    pub(super) fn put_sign(&mut self, kind: Kind) {
        if self.has_room() {
            self.put(Head::plain(kind, 0), Bytes::new());
        }
    }

    /// Writes what was put. Ready when all of it is with the socket (which may need a flush).
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.batch.is_empty() {
            let n = ready!(Self::write_some(
                &mut self.stream,
                &mut self.blocked,
                &mut self.took,
                cx,
                &self.batch
            ))?;
            self.batch.advance(n);
            self.taken += n;
        }
        while !self.body.is_empty() {
            let n = ready!(Self::write_some(
                &mut self.stream,
                &mut self.blocked,
                &mut self.took,
                cx,
                &self.body
            ))?;
            self.body.advance(n);
            self.taken += n;
        }
        // Even empty it would keep what it was a part of.
        self.body = Bytes::new();
        self.emptied = true;
        if self.batch.capacity() > READ {
            self.batch = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn write_some(
        stream: &mut TcpStream,
        blocked: &mut bool,
        took: &mut bool,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(stream).poll_write(cx, bytes) {
            Poll::Pending => {
                *blocked = true;
                Poll::Pending
            }
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => {
                *took |= std::mem::take(blocked);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
        }
    }

    /// Flushes if anything was written since the last flush. The simulated socket sends nothing
    /// before, and spaces flushes by a millisecond.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Size of the new block that the next read needs; `None` while the present one has room.
    fn next_block(&self) -> Option<usize> {
        let (len, chunk) = (self.input.len(), self.chunk.1);
        if self.input.capacity() - len >= chunk / 16 {
            return None;
        }
        let missing = frame::missing(&self.input);
        Some(match missing > chunk {
            // All of it at once: it is not moved again.
            true => len + missing,
            false => len + chunk,
        })
    }

    /// Reads once into the buffer. Ready with `Closed` at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        if let Some(size) = self.next_block()
            // When no body of an earlier frame is held any more, its block serves again.
            && !(size <= self.block && self.input.try_reclaim(size - self.input.len()))
        {
            let mut block = BytesMut::with_capacity(size);
            block.extend_from_slice(&self.input);
            (self.input, self.block) = (block, size);
        }
        let spare = self.input.capacity() - self.input.len();
        let read = pin!(self.stream.read_buf(&mut self.input));
        match ready!(read.poll(cx))? {
            0 => Poll::Ready(Err(WireError::Closed)),
            n => {
                self.heard = true;
                if n == spare {
                    self.chunk.1 = (2 * self.chunk.1).min(self.chunk.0);
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Takes the next frame that is complete in the buffer.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = frame::take(&mut self.input, self.max_frame)?;
        match frame {
            Some(_) => {
                self.half = None;
                // What is left of a long frame's block would keep all of it.
                if self.block > 2 * READ {
                    self.input = BytesMut::from(&self.input[..]);
                    self.block = self.input.len();
                }
            }
            None if self.input.is_empty() => self.half = None,
            None if self.half.is_none() => self.half = Some(now()),
            None => {}
        }
        Ok(frame)
    }

    /// Sends one frame and flushes.
    pub(super) async fn send(&mut self, head: Head, body: Bytes) -> Result<(), WireError> {
        self.put(head, body);
        poll_fn(|cx| {
            ready!(self.poll_write(cx))?;
            self.poll_flush(cx)
        })
        .await?;
        Ok(())
    }

    /// Receives one frame.
    pub(super) async fn receive(&mut self) -> Result<Frame, WireError> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(frame);
            }
            poll_fn(|cx| self.poll_fill(cx)).await?;
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
