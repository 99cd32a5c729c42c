//! The file format of recordings: a header of 64 bytes, and records of 64 bytes each; docs/RECORDING.md
//! describes it.
//!
//! A recording is untrusted input: every record is checked, and an invalid one is an error.

use std::net::IpAddr;
use std::time::Duration;

use varta_proto::crc32c;

use crate::base::clock::Clock;
use crate::base::time::{MonoTime, nanos};
use crate::domain::beat::{KeyId, Origin, RemoteEndpoint, Sender};

/// The length of the header and of each record, in bytes.
pub(crate) const LENGTH: usize = LENGTH_TOLD as usize;
/// The length as the header holds it.
const LENGTH_TOLD: u32 = 64;
/// The magic number at the beginning of a recording.
const MAGIC: [u8; 8] = *b"VARTAREC";
/// The version of the format: version 1 has no agents that are forgotten on request, version 2 none that speak
/// sd_notify(3), version 3 none that are known by their names alone, and version 4 none that say that they count.
const VERSION: u32 = 5;
/// The offset of the checksum (CRC-32C), which covers everything before it.
pub(super) const CRC_AT: usize = LENGTH - 4;
/// The offset of a part of a name in its block, and the length of that part.
pub(super) const TEXT_AT: usize = 16;
pub(super) const TEXT: usize = CRC_AT - TEXT_AT;
/// The most bytes of a recorded name; a longer one is cut.
pub(super) const MAX_NAME_LEN: usize = 3 * TEXT;

/// One record, or the header, as the file holds it.
pub(crate) type Block = [u8; LENGTH];

/// The header of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The Unix time of the recorded server's start, in nanoseconds.
    pub(crate) unix_start: u64,
    /// The default timeout of the recorded server.
    pub(crate) stall_after: Duration,
}

/// The kinds of records, in the first byte.
pub(super) mod kind {
    pub(in crate::services::recording) const BEAT: u8 = 1;
    pub(in crate::services::recording) const HELLO: u8 = 2;
    pub(in crate::services::recording) const GOODBYE: u8 = 3;
    pub(in crate::services::recording) const PROCESS: u8 = 4;
    /// A part of the name of the next hello, process, forget or report record.
    pub(in crate::services::recording) const NAME: u8 = 5;
    pub(in crate::services::recording) const BLIND: u8 = 6;
    pub(in crate::services::recording) const LOSS: u8 = 7;
    pub(in crate::services::recording) const DEATH: u8 = 8;
    pub(in crate::services::recording) const ABSENCE: u8 = 9;
    pub(in crate::services::recording) const GAP: u8 = 10;
    pub(in crate::services::recording) const END: u8 = 11;
    pub(in crate::services::recording) const ATTACH: u8 = 12;
    pub(in crate::services::recording) const FORGET: u8 = 13;
    pub(in crate::services::recording) const NOTIFICATION: u8 = 14;
    pub(in crate::services::recording) const REPORT: u8 = 15;
}

/// The transports of datagrams.
pub(super) mod way {
    pub(in crate::services::recording) const LOCAL: u8 = 0;
    pub(in crate::services::recording) const UDP: u8 = 1;
    pub(in crate::services::recording) const SECURE_UDP: u8 = 2;
    pub(in crate::services::recording) const NOTIFY: u8 = 3;
    pub(in crate::services::recording) const NAMED: u8 = 4;
}

/// The events of reports.
pub(super) mod event {
    pub(in crate::services::recording) const BEAT: u8 = 0;
    pub(in crate::services::recording) const STARTED: u8 = 1;
    pub(in crate::services::recording) const ENDED: u8 = 2;
    pub(in crate::services::recording) const FAILED: u8 = 3;
    pub(in crate::services::recording) const DECLARED: u8 = 4;
}

/// The kinds of exits.
pub(super) mod end {
    pub(in crate::services::recording) const UNKNOWN: u8 = 0;
    pub(in crate::services::recording) const EXITED: u8 = 1;
    pub(in crate::services::recording) const KILLED: u8 = 2;
}

/// Bits of a record's flags, which mark optional fields as present.
pub(super) mod flag {
    pub(in crate::services::recording) const INTERVAL: u32 = 1;
    pub(in crate::services::recording) const STALL_AFTER: u32 = 2;
    pub(in crate::services::recording) const BUSY_FOR: u32 = 4;
    pub(in crate::services::recording) const NAME: u32 = 8;
    pub(in crate::services::recording) const REASON: u32 = 16;
    pub(in crate::services::recording) const GROUP: u32 = 32;
    pub(in crate::services::recording) const CORE_DUMPED: u32 = 64;
    pub(in crate::services::recording) const ENDED: u32 = 128;
    pub(in crate::services::recording) const BEAT: u32 = 256;
    pub(in crate::services::recording) const LEAVES: u32 = 512;
    pub(in crate::services::recording) const UNAWAITED: u32 = 1_024;
    /// A failure has a status.
    pub(in crate::services::recording) const STATUS: u32 = 2_048;
    pub(in crate::services::recording) const NO_PROGRESS_AFTER: u32 = 4_096;
}

/// The fields of a record, whose meaning depends on its kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    pub(super) kind: u8,
    /// The transport of a datagram; for a loss [`Transport::index`](crate::domain::beat::Transport::index).
    pub(super) way: u8,
    /// The address family: 4 or 6; 0 for none.
    pub(super) family: u8,
    pub(super) detail: u8,
    pub(super) pid: u32,
    pub(super) at: u64,
    /// An address, or two numbers.
    pub(super) wide: [u8; 16],
    pub(super) port: u16,
    pub(super) key: u16,
    pub(super) short: u32,
    pub(super) nonce: u64,
    pub(super) timestamp: u64,
    pub(super) flags: u32,
}

impl Fields {
    pub(super) fn of(kind: u8, at: MonoTime) -> Self {
        Fields { kind, at: at.as_nanos(), ..Fields::default() }
    }

    pub(super) fn of_sender(kind: u8, at: MonoTime, sender: Sender) -> Self {
        let Sender { origin, pid, lane: RemoteEndpoint { port, key: KeyId(key) } } = sender;
        let way = match origin {
            Origin::Local => way::LOCAL,
            Origin::Notify => way::NOTIFY,
            Origin::Named { .. } => way::NAMED,
            Origin::Udp(_) => way::UDP,
            Origin::SecureUdp(_) => way::SECURE_UDP,
        };
        let mut wide = [0; 16];
        if let Origin::Named { uid } = origin {
            wide[..4].copy_from_slice(&uid.to_le_bytes());
        }
        let family = match origin.address() {
            None => 0,
            Some(IpAddr::V4(address)) => {
                wide[..4].copy_from_slice(&address.octets());
                4
            }
            Some(IpAddr::V6(address)) => {
                wide = address.octets();
                6
            }
        };
        Fields { way, pid, wide, port, key, family, ..Fields::of(kind, at) }
    }

    /// Sets two numbers in place of an address.
    pub(super) fn with(mut self, first: u64, second: u64) -> Self {
        self.wide[..8].copy_from_slice(&first.to_le_bytes());
        self.wide[8..].copy_from_slice(&second.to_le_bytes());
        self
    }

    pub(super) fn numbers(&self) -> [u64; 2] {
        let number = u128::from_le_bytes(self.wide);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
        [number as u64, (number >> 64) as u64]
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend([self.kind, self.way, self.family, self.detail]);
        out.extend(self.pid.to_le_bytes());
        out.extend(self.at.to_le_bytes());
        out.extend(self.wide);
        out.extend(self.port.to_le_bytes());
        out.extend(self.key.to_le_bytes());
        out.extend(self.short.to_le_bytes());
        out.extend(self.nonce.to_le_bytes());
        out.extend(self.timestamp.to_le_bytes());
        out.extend(self.flags.to_le_bytes());
        close(out, begin);
    }

    pub(super) fn get(block: &Block) -> Self {
        Fields {
            kind: block[0],
            way: block[1],
            family: block[2],
            detail: block[3],
            pid: u32::from_le_bytes(part(block, 4)),
            at: u64::from_le_bytes(part(block, 8)),
            wide: part(block, 16),
            port: u16::from_le_bytes(part(block, 32)),
            key: u16::from_le_bytes(part(block, 34)),
            short: u32::from_le_bytes(part(block, 36)),
            nonce: u64::from_le_bytes(part(block, 40)),
            timestamp: u64::from_le_bytes(part(block, 48)),
            flags: u32::from_le_bytes(part(block, 56)),
        }
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn sender(&self) -> Result<Sender, FormatError> {
        let [a, b, c, d, ..] = self.wide;
        let address = match self.family {
            0 => None,
            4 => Some(IpAddr::from([a, b, c, d])),
            6 => Some(IpAddr::from(self.wide)),
            other => return Err(FormatError::Value { what: "family of an address", found: other.into() }),
        };
        let origin = match (self.way, address) {
            (way::LOCAL, None) => Origin::Local,
            (way::NOTIFY, None) => Origin::Notify,
            (way::NAMED, None) => Origin::Named { uid: u32::from_le_bytes([a, b, c, d]) },
            (way::UDP, Some(address)) => Origin::Udp(address),
            (way::SECURE_UDP, Some(address)) => Origin::SecureUdp(address),
            (other, _) => return Err(FormatError::Value { what: "way of a datagram", found: other.into() }),
        };
        Ok(Sender { origin, pid: self.pid, lane: RemoteEndpoint { port: self.port, key: KeyId(self.key) } })
    }
}

/// Why bytes are no valid record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("is not a recording of varta-server")]
    NotARecording,
    #[error(
        "was written by another version of varta-server (version {found} of its form; this one reads 1 to {VERSION}); \
         replay it with that one"
    )]
    Version { found: u32 },
    #[error("its checksum does not fit")]
    Checksum,
    #[error("there is no kind {0} of records")]
    Kind(u8),
    #[error("{found} is no {what}")]
    Value { what: &'static str, found: u64 },
    #[error("the name of a hello, process or agent makes no sense")]
    Name,
}

impl Header {
    /// The header for a recording of a server with this clock.
    pub(crate) fn new(clock: Clock, stall_after: Duration) -> Self {
        let unix_start = Duration::try_from_secs_f64(clock.wall_start_seconds());
        Header { unix_start: unix_start.map_or(0, nanos), stall_after }
    }

    pub(crate) fn encode(&self) -> Block {
        let mut block = [0; LENGTH];
        block[..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&LENGTH_TOLD.to_le_bytes());
        block[16..24].copy_from_slice(&self.unix_start.to_le_bytes());
        block[24..32].copy_from_slice(&nanos(self.stall_after).to_le_bytes());
        let checksum = crc32c::checksum(&block[..CRC_AT]);
        block[CRC_AT..].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// Decodes a header, the inverse of [`Header::encode`].
    pub(crate) fn decode(block: &Block) -> Result<Self, FormatError> {
        if block[..8] != MAGIC {
            return Err(FormatError::NotARecording);
        }
        let found = u32::from_le_bytes(part(block, 8));
        if !(1..=VERSION).contains(&found) {
            return Err(FormatError::Version { found });
        }
        check(block)?;
        Ok(Header {
            unix_start: u64::from_le_bytes(part(block, 16)),
            stall_after: Duration::from_nanos(u64::from_le_bytes(part(block, 24))),
        })
    }
}

/// A field of fixed length.
pub(super) fn part<const N: usize>(block: &Block, at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&block[at..at + N]);
    part
}

pub(super) fn check(block: &Block) -> Result<(), FormatError> {
    let expected = u32::from_le_bytes(part(block, CRC_AT));
    if crc32c::checksum(&block[..CRC_AT]) == expected { Ok(()) } else { Err(FormatError::Checksum) }
}

/// Appends the checksum of the record that begins at `begin`.
pub(super) fn close(out: &mut Vec<u8>, begin: usize) {
    let checksum = crc32c::checksum(&out[begin..]);
    out.extend(checksum.to_le_bytes());
    debug_assert_eq!(out.len() - begin, LENGTH, "records have one length");
}
