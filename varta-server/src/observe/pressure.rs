//! Pressure stall information (PSI): the share of time in which tasks waited for CPU, memory or I/O.

use crate::domain::process::{Pressure, Stall};

impl Pressure {
    /// Reads the pressure of each resource through `file`, which reads the file of one resource.
    pub(crate) fn read(mut file: impl FnMut(&str, &mut [u8]) -> Option<usize>) -> Self {
        let mut stall = |resource: &str| {
            // A file has two lines of about seventy characters.
            let mut room = [0; 512];
            let length = file(resource, &mut room)?;
            Stall::parse(&room[..length])
        };
        Pressure { cpu: stall("cpu"), memory: stall("memory"), io: stall("io") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::process::Share;

    #[test]
    fn pressure_files_are_read_as_the_kernel_writes_them() {
        let stall = |some, full| Some(Stall { some: Share(some), full: Share(full) });
        let table: [(&[u8], _); 9] = [
            (b"some avg10=9.33 avg60=26.30 avg300=19.46 total=1559017061\nfull avg10=0.00 avg60=0.00 total=0\n", stall(933, 0)),
            (b"some avg10=100.00 avg60=1.00 total=1\nfull avg10=99.99 avg60=0.00 total=0\n", stall(10_000, 9_999)),
            (b"some avg10=0.22 avg60=0.27 avg300=0.20 total=57384460\n", stall(22, 0)),
            (b"some avg10=100.01 total=1\n", None),
            (b"some avg10=-1.00 total=1\n", None),
            (b"some avg10=99999999999999999999.00\n", None),
            (b"full avg10=1.00 total=1\n", None),
            (b"some avg10=\xff\n", None),
            (b"", None),
        ];
        for (file, expected) in table {
            assert_eq!(Stall::parse(file), expected, "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let pressure =
            Pressure { memory: Some(Stall { some: Share(1234), ..Stall::default() }), ..Pressure::default() };
        assert_eq!(pressure.to_string(), "memory 12.3 %");
        assert!(pressure.is_known());
        assert!(!Pressure::default().is_known());
    }
}
