//! The body of a response with metrics: pieces of text as they are, or compressed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::mem;
use std::pin::Pin;
use std::task::{self, Poll};

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
struct Gzip {
    pieces: VecDeque<Bytes>,
    /// `None` at the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    fn new(pieces: VecDeque<Bytes>) -> Self {
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

/// Compresses pieces of text. Other tasks of the thread run meanwhile.
pub(super) async fn compressed(pieces: VecDeque<Bytes>) -> Vec<Bytes> {
    let mut whole = Vec::new();
    for step in Gzip::new(pieces) {
        if !step.is_empty() {
            whole.push(step);
        }
        tokio::task::yield_now().await;
    }
    whole
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
    async fn other_tasks_run_while_a_body_is_compressed() {
        use std::cell::Cell;

        let (turns, text) = (Cell::new(0), rows(10_000));
        let other = async {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let steps = text.len().div_ceil(TURN_LEN);
        tokio::select! {
            () = other => {}
            whole = compressed([text.clone()].into()) => assert_eq!(unzipped(&whole.concat()), text),
        }
        assert!(steps > 5 && turns.get() >= steps, "{} of {steps}", turns.get());
    }
}
