//! The body of a response with metrics: pieces of text as they are, or compressed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::mem;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use axum::body::HttpBody;
use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Frame, SizeHint};

/// The level at which most of the repetition in rows is found, for little more time than at the lowest.
const LEVEL: Compression = Compression::new(2);
/// The most bytes of text that are compressed before other tasks run: a fraction of a millisecond.
const TURN_LEN: usize = 64 * 1024;
/// The bytes of compressed text from which on they are sent.
const FRAME_LEN: usize = 16 * 1024;

/// Separate chunks, which are not copied into one.
pub(super) struct Plain {
    pub(super) pieces: VecDeque<Bytes>,
}

impl HttpBody for Plain {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// Compresses pieces of text, some of it with each step. A step that has nothing to send yet is empty.
pub(super) struct Gzip {
    pieces: VecDeque<Bytes>,
    /// `None` at the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    pub(super) fn new(pieces: VecDeque<Bytes>) -> Self {
        Gzip { pieces, encoder: Some(GzEncoder::new(Vec::new(), LEVEL)) }
    }
}

impl Iterator for Gzip {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        const IN_MEMORY: &str = "memory takes all that is written to it";
        let encoder = self.encoder.as_mut()?;
        let mut room = TURN_LEN;
        while room > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            let length = piece.len().min(room);
            encoder.write_all(&piece[..length]).expect(IN_MEMORY);
            piece.advance(length);
            room -= length;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        if self.pieces.is_empty() {
            return Some(self.encoder.take()?.finish().expect(IN_MEMORY).into());
        }
        let compressed = encoder.get_mut();
        Some(if compressed.len() >= FRAME_LEN { mem::take(compressed).into() } else { Bytes::new() })
    }
}

/// A body that is made while it is sent. After each of its steps other tasks of the thread run.
pub(super) struct InSteps<I> {
    steps: I,
    /// While other tasks run.
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<I: Iterator<Item = Bytes> + Unpin> InSteps<I> {
    pub(super) fn new(steps: I) -> Self {
        InSteps { steps, pause: None }
    }
}

impl<I: Iterator<Item = Bytes> + Unpin> HttpBody for InSteps<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let InSteps { steps, pause } = self.get_mut();
        loop {
            if let Some(until) = pause {
                ready!(until.as_mut().poll(context));
                *pause = None;
            }
            let Some(step) = steps.next() else { return Poll::Ready(None) };
            *pause = Some(Box::pin(tokio::task::yield_now()));
            if !step.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(step))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn rows(count: usize) -> Bytes {
        let row =
            |n| format!("varta_beats_total{{pid=\"{n}\",agent=\"worker\",transport=\"unix\"}} {}\n", n % 97);
        (0..count).map(row).collect::<String>().into()
    }

    fn unzipped(compressed: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        GzDecoder::new(compressed).read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_unzipped_is_the_text_and_no_step_takes_more_than_its_share() {
        for pieces in [vec![], vec![Bytes::from("a 1\n")], vec![rows(3), rows(20_000), Bytes::new(), rows(7)]]
        {
            let text = pieces.concat();
            let steps: Vec<_> = Gzip::new(pieces.into()).collect();
            assert_eq!(steps.len(), text.len().div_ceil(TURN_LEN).max(1));
            assert!(steps.iter().rev().skip(1).all(|step| step.is_empty() || step.len() >= FRAME_LEN));
            let compressed = steps.concat();
            assert_eq!(unzipped(&compressed), text);
            assert!(text.len() < 100_000 || compressed.len() * 10 < text.len(), "{}", compressed.len());
        }
    }

    #[tokio::test]
    async fn other_tasks_run_between_the_steps_of_a_body() {
        use std::cell::Cell;
        use std::rc::Rc;

        let (turns, steps) =
            (Rc::new(Cell::new(0)), [Bytes::new(), Bytes::from("x"), Bytes::new(), Bytes::from("y")]);
        let count = Rc::clone(&turns);
        let other = async move {
            loop {
                count.set(count.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let mut body = InSteps::new(steps.into_iter());
        let whole = async {
            let mut text = Vec::new();
            while let Some(frame) =
                std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
                text.extend(frame.unwrap().into_data().unwrap());
            }
            text
        };
        let local = tokio::task::LocalSet::new();
        local.spawn_local(other);
        assert_eq!(local.run_until(whole).await, b"xy");
        assert!(turns.get() >= 4, "{}", turns.get());
    }
}
