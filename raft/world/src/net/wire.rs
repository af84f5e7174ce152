//! A TCP stream with frames on it: one owner reads and writes, nothing is split or locked.

use super::frame::{self, Frame, FrameError, HEADER, Head, Kind};
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

/// Room made for one read.
const READ: usize = 64 << 10;

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
    /// A frame was put since this was last cleared.
    pub(super) spoke: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, max_frame: usize) -> Wire {
        Wire {
            stream,
            max_frame,
            input: BytesMut::new(),
            batch: BytesMut::new(),
            body: Bytes::new(),
            unflushed: false,
            blocked: false,
            heard: false,
            took: false,
            spoke: false,
        }
    }

    /// From now on accepts bodies up to this size.
    pub(super) fn set_max_frame(&mut self, bytes: usize) {
        self.max_frame = bytes;
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
        }
        // Even empty it would keep what it was a part of.
        self.body = Bytes::new();
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

    /// Reads once into the buffer. Ready with `Closed` at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let spare = self.input.capacity() - self.input.len();
        if spare < READ / 16 {
            // A large frame's room grows with what has come, never with what its header promises.
            let missing = frame::missing(&self.input);
            self.input
                .reserve(missing.clamp(READ, self.input.len().max(READ)));
        }
        let read = pin!(self.stream.read_buf(&mut self.input));
        match ready!(read.poll(cx))? {
            0 => Poll::Ready(Err(WireError::Closed)),
            _ => {
                self.heard = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Takes the next frame that is complete in the buffer.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        frame::take(&mut self.input, self.max_frame)
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
