//! Claims about the detectors on arrivals that were recorded: a process that beats every 100 ms, works a little
//! between two beats, and shares two processors with compilers.

use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::tracker::detection::arrival::estimator::{Arrivals, MIN_SAMPLES};
use crate::domain::tracker::detection::arrival::policy::{ArrivalPolicy, Bounds, Kind, Phi};

/// The gaps between the beats as they arrived on a Unix socket, in microseconds.
#[rustfmt::skip]
const GAPS: [u32; 699] = [
    121_039, 101_545, 101_058, 103_834, 106_081, 103_020, 124_579, 104_409, 111_132, 102_861, 105_033,
    104_119, 101_176, 107_123, 112_462, 101_098, 133_349, 101_908, 103_265, 107_441, 103_030, 127_985,
    105_093, 101_425, 113_505, 103_553, 106_227, 122_230, 103_989, 99_799, 104_201, 103_998, 104_000,
    99_998, 96_990, 101_386, 109_631, 103_998, 98_971, 102_871, 100_316, 102_831, 115_008, 94_108,
    109_903, 108_017, 93_953, 111_125, 110_899, 112_024, 121_568, 93_191, 119_204, 95_046, 101_085,
    106_861, 107_015, 101_180, 107_854, 108_149, 101_369, 108_362, 102_936, 101_113, 102_055, 102_975,
    114_908, 105_100, 105_509, 114_495, 109_525, 106_727, 115_248, 105_580, 103_991, 110_930, 108_995,
    104_633, 103_375, 101_155, 122_844, 116_103, 107_880, 108_209, 111_813, 106_989, 116_972, 103_033,
    107_164, 109_808, 108_129, 111_903, 103_974, 107_986, 108_041, 108_043, 123_935, 116_004, 104_070,
    101_161, 113_772, 99_996, 116_004, 113_883, 94_119, 109_345, 102_653, 124_006, 85_737, 100_169,
    115_519, 114_598, 95_979, 104_003, 87_996, 98_771, 105_225, 104_012, 97_062, 101_097, 106_909,
    113_415, 103_011, 116_926, 101_241, 109_378, 102_953, 100_957, 101_219, 102_875, 107_972, 120_262,
    107_092, 104_846, 103_792, 117_926, 103_737, 102_706, 101_260, 130_734, 118_618, 105_053, 105_887,
    111_575, 114_465, 120_096, 103_916, 104_771, 104_823, 106_488, 108_150, 102_099, 105_988, 107_703,
    115_984, 101_098, 102_930, 116_341, 108_586, 115_339, 181_902, 114_450, 102_926, 115_430, 101_179,
    110_822, 123_992, 110_429, 107_932, 105_999, 122_427, 102_937, 102_368, 111_913, 125_109, 102_223,
    101_301, 101_294, 101_272, 104_233, 105_865, 108_034, 106_683, 101_479, 101_279, 104_574, 109_679,
    103_964, 101_398, 106_718, 111_985, 101_158, 108_408, 112_092, 110_273, 110_982, 112_000, 109_025,
    108_022, 111_963, 162_996, 82_873, 106_101, 104_016, 104_039, 108_007, 101_178, 101_095, 105_707,
    104_035, 104_022, 111_991, 139_977, 107_978, 101_210, 105_750, 105_085, 111_381, 104_964, 120_712,
    138_935, 104_311, 115_848, 101_157, 104_124, 101_118, 101_161, 112_182, 132_092, 111_983, 107_974,
    116_091, 106_889, 109_165, 106_843, 109_066, 102_927, 113_062, 111_983, 106_958, 117_012, 118_990,
    125_052, 106_944, 113_084, 108_002, 123_974, 107_988, 127_952, 101_260, 106_865, 106_890, 105_036,
    107_895, 123_083, 107_977, 104_010, 124_000, 101_552, 114_441, 101_553, 124_330, 110_112, 108_005,
    111_997, 112_003, 111_999, 104_004, 95_995, 98_141, 113_856, 105_022, 119_002, 91_985, 111_992,
    95_993, 97_556, 108_191, 122_257, 95_997, 124_005, 88_945, 105_423, 105_630, 116_012, 117_799,
    122_215, 129_070, 157_771, 107_619, 109_524, 140_004, 69_095, 106_895, 99_914, 116_084, 98_246,
    106_825, 120_028, 122_343, 109_599, 107_457, 104_544, 112_014, 107_981, 107_990, 104_373, 103_657,
    107_983, 103_057, 104_967, 103_993, 103_999, 106_974, 101_349, 101_146, 146_554, 110_914, 109_105,
    107_972, 111_971, 112_077, 113_350, 121_521, 113_045, 104_019, 130_403, 121_634, 103_496, 111_409,
    121_066, 112_850, 123_092, 136_110, 107_939, 112_009, 103_969, 105_489, 101_226, 109_318, 103_960,
    108_010, 101_201, 105_761, 107_772, 106_537, 101_122, 101_187, 102_983, 105_510, 103_891, 101_383,
    101_096, 108_179, 101_186, 107_157, 104_988, 104_024, 102_767, 101_147, 104_056, 104_091, 103_943,
    108_025, 119_966, 120_026, 124_312, 122_675, 120_037, 107_964, 101_120, 103_897, 107_710, 107_250,
    117_013, 108_182, 101_110, 101_091, 109_763, 104_058, 101_095, 153_773, 116_974, 112_143, 111_890,
    107_955, 104_014, 116_190, 101_269, 105_819, 101_252, 108_207, 106_207, 123_993, 113_091, 101_128,
    110_811, 107_769, 107_199, 109_082, 123_987, 103_047, 104_959, 103_984, 107_998, 101_154, 106_864,
    128_012, 120_081, 110_837, 105_071, 111_990, 108_031, 107_973, 120_046, 103_903, 110_992, 129_153,
    108_123, 119_743, 104_110, 103_945, 112_122, 105_930, 109_944, 107_916, 116_040, 108_031, 112_038,
    107_934, 104_073, 115_949, 104_116, 115_933, 106_896, 105_025, 114_979, 101_180, 107_858, 108_013,
    104_004, 123_986, 112_041, 106_902, 117_052, 120_001, 116_019, 103_978, 104_027, 108_067, 123_898,
    108_025, 116_005, 116_008, 111_972, 118_954, 116_004, 95_780, 103_853, 113_421, 101_102, 117_847,
    111_996, 100_006, 97_066, 120_234, 107_774, 103_987, 103_987, 103_960, 112_128, 101_086, 101_186,
    101_146, 104_516, 114_938, 105_346, 101_554, 106_259, 102_822, 117_038, 103_941, 101_080, 101_214,
    101_176, 104_592, 104_041, 104_020, 103_942, 101_098, 101_142, 101_175, 104_611, 103_998, 101_308,
    106_667, 108_011, 103_987, 104_023, 103_999, 108_057, 107_957, 104_058, 101_126, 114_821, 101_143,
    101_064, 112_725, 105_508, 101_624, 112_875, 107_992, 104_705, 101_172, 101_166, 105_999, 115_999,
    108_032, 103_966, 104_016, 103_999, 106_934, 109_102, 116_002, 123_946, 107_995, 128_008, 128_058,
    110_899, 109_098, 111_960, 116_038, 107_961, 102_935, 101_124, 123_975, 119_960, 116_301, 108_119,
    114_536, 108_000, 113_047, 116_023, 120_123, 113_886, 114_000, 111_971, 108_051, 106_885, 113_053,
    106_953, 113_044, 111_989, 111_960, 104_101, 101_106, 105_790, 105_215, 111_838, 116_053, 106_901,
    109_037, 101_098, 101_144, 113_722, 101_119, 101_080, 101_129, 104_701, 104_011, 107_981, 104_019,
    101_110, 105_836, 109_098, 103_990, 103_994, 102_375, 101_195, 104_420, 108_028, 101_122, 101_135,
    101_164, 108_608, 114_928, 105_076, 111_933, 119_953, 106_990, 113_100, 120_021, 107_966, 115_953,
    102_960, 101_120, 107_958, 115_938, 106_987, 113_056, 112_056, 103_974, 104_053, 103_923, 110_936,
    105_064, 101_302, 102_703, 108_037, 104_052, 111_916, 104_001, 101_161, 101_130, 105_680, 101_105,
    102_825, 120_089, 116_033, 103_961, 108_004, 102_945, 113_109, 102_886, 109_039, 108_006, 104_037,
    106_917, 105_021, 108_020, 102_956, 113_049, 111_972, 112_012, 103_983, 110_991, 125_034, 101_147,
    101_130, 105_691, 120_071, 127_696, 115_255, 111_974, 112_003, 109_054, 106_948, 108_022, 116_008,
    115_968, 105_471, 106_527, 112_043, 111_961, 104_001, 111_997, 101_696, 114_301, 108_695, 107_307,
    109_658, 111_314, 104_128, 115_908, 103_968, 103_014, 109_093, 102_908, 109_073, 127_570, 108_369,
    103_978, 104_004, 101_116, 101_121, 101_144, 101_160, 101_134, 101_178, 101_284, 101_130, 101_116,
    121_668, 104_839, 111_175, 111_943, 103_360, 119_519, 102_740, 101_219, 101_698, 101_127, 102_349,
    123_971, 104_036, 111_940, 103_992, 112_066, 106_223,
];

const TENTH: Duration = Duration::from_millis(100);

fn micros(gap: u32) -> Duration {
    Duration::from_micros(gap.into())
}

/// One agent, by the times at which its beats arrive. Its clock is the server's: it is on the same host.
struct Replayed {
    policy: ArrivalPolicy,
    arrivals: Arrivals,
    now: MonoTime,
    nonce: u64,
    /// The silences that were longer than the timeout at that moment, with that timeout.
    mistakes: Vec<(Duration, Duration)>,
}

impl Replayed {
    fn new(kind: Kind) -> Self {
        let now = MonoTime::from_secs(1);
        let policy = ArrivalPolicy { kind, ..ArrivalPolicy::default() };
        let arrivals = Arrivals::new(now, 1, now.as_nanos());
        Replayed { policy, arrivals, now, nonce: 1, mistakes: Vec::new() }
    }

    /// The detector after all recorded beats.
    fn after_all(kind: Kind) -> Self {
        let mut replayed = Replayed::new(kind);
        GAPS.iter().for_each(|gap| replayed.hear_after(micros(*gap)));
        replayed
    }

    fn hear_after(&mut self, silence: Duration) {
        if let Ok(timeout) = self.arrivals.stall_after(&self.policy)
            && silence > timeout
        {
            self.mistakes.push((silence, timeout));
        }
        self.now = self.now + silence;
        self.nonce += 1;
        self.arrivals.observe(self.now, self.nonce, self.now.as_nanos());
    }

    fn timeout(&self) -> Duration {
        self.arrivals.stall_after(&self.policy).unwrap()
    }
}

fn hourly() -> Kind {
    Kind::Chen(Bounds { mistake_every: Some(Duration::from_secs(3_600)), ..Bounds::default() })
}

#[test]
fn phi_as_published_calls_a_process_stalled_that_was_only_not_scheduled_and_phi_by_default_does_not() {
    let published = Replayed::after_all(Kind::Phi(Phi::PUBLISHED));
    assert_eq!(published.mistakes.len(), 2, "{:?}", published.mistakes);
    assert!(published.mistakes.iter().all(|(silence, _)| *silence < 2 * TENTH));
    let usual = Replayed::after_all(Kind::Phi(Phi::default()));
    assert_eq!(usual.mistakes, []);
}

#[test]
fn a_pause_up_to_the_acceptable_one_is_none_of_phis_mistakes_and_a_longer_one_is() {
    for (pause, mistakes) in [(1_500, 0), (3_000, 0), (3_800, 1)] {
        let mut usual = Replayed::after_all(Kind::Phi(Phi::default()));
        usual.hear_after(Duration::from_millis(pause));
        assert_eq!(usual.mistakes.len(), mistakes, "{pause} ms: {:?}", usual.mistakes);
    }
}

#[test]
fn the_timeout_of_phi_is_no_shorter_than_its_pause_and_its_minimum_deviation_from_the_first_estimate_on() {
    // The mean, 3 s, and the 5.612 deviations of a threshold of 8.
    let floor = TENTH + Duration::from_secs(3) + Duration::from_millis(560);
    let mut replayed = Replayed::new(Kind::Phi(Phi::default()));
    for gap in GAPS.iter().take(MIN_SAMPLES.into()) {
        replayed.hear_after(micros(*gap));
    }
    for gap in &GAPS[MIN_SAMPLES.into()..] {
        let timeout = replayed.timeout();
        assert!(timeout >= floor && timeout < floor + 2 * TENTH, "{timeout:?}");
        replayed.hear_after(micros(*gap));
    }
}

#[test]
fn without_a_pause_the_minimum_deviation_alone_keeps_phi_from_a_hair_trigger() {
    let settings = Phi { min_deviation: TENTH, ..Phi::PUBLISHED };
    let replayed = Replayed::after_all(Kind::Phi(settings));
    assert_eq!(replayed.mistakes, []);
    assert!(replayed.timeout() > 6 * TENTH, "{:?}", replayed.timeout());
}

#[test]
fn chen_takes_a_loss_for_possible_that_it_has_not_seen_and_so_waits_for_a_second_beat() {
    let replayed = Replayed::after_all(hourly());
    assert_eq!(replayed.mistakes, []);
    let assumed = 1.0 / (f64::from(u32::try_from(GAPS.len()).unwrap()) + 2.0);
    let link = replayed.arrivals.link();
    assert!((link.loss - assumed).abs() < 1e-9 && (link.loss_again - assumed).abs() < 1e-9, "{link:?}");
    // One beat in 701 may be lost. If the first missing beat counted, that would be a mistake every 76 s; two
    // that are lost in a row are one in 15 hours.
    assert!(replayed.timeout() > 2 * TENTH && replayed.timeout() < 5 * TENTH, "{:?}", replayed.timeout());
}

#[test]
fn after_a_thousand_beats_chen_takes_one_in_a_thousand_for_lost_however_many_follow() {
    for rounds in [2, 5] {
        let mut replayed = Replayed::new(hourly());
        for gap in GAPS.iter().cycle().take(rounds * GAPS.len()) {
            replayed.hear_after(micros(*gap));
        }
        let loss = replayed.arrivals.link().loss;
        assert!((loss - 1.0 / 1_002.0).abs() < 1e-9, "{loss}");
    }
}
