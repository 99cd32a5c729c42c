//! How long agents are kept that do not beat: by a rule for their names, and by their states.

use super::*;
use crate::base::Glob;
use crate::domain::process::ProcessId;
use crate::domain::{ExpectedAgents, ForgetAfter, Rule, Rules};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn at(seconds: u64) -> MonoTime {
    MonoTime::from_secs(seconds)
}

fn rules(forget_after: ForgetAfter) -> Rules {
    let mut rules = Rules::default();
    rules.add(Rule { forget_after, ..Rule::of(Glob::parse("worker").unwrap()) }).unwrap();
    rules
}

/// A world with a rule for `worker`, in which an agent of that name has beaten once, and so has a `stranger`.
fn with_rule(forget_after: ForgetAfter) -> World {
    let mut world = World::with(Policy { rules: rules(forget_after), ..Policy::default() });
    for (pid, name) in [(PID, "worker"), (PID + 1, "stranger")] {
        world.spawn(pid, name, 100);
        world.hear(Handle::connect(pid, at(0)).next(at(0), Status::Ok));
    }
    world
}

fn end(world: &mut World, pid: u32, death: ExitStatus) {
    let process = ProcessId { pid, start_time: NonZeroU64::new(100).unwrap() };
    world.tracker.handle_exit(process, death, Lineage::default(), at(1), at(1));
}

#[test]
fn an_agent_is_kept_for_as_long_as_the_rule_for_its_name_says_of_its_state() {
    let kept = ForgetAfter { stalled: Some(MINUTE), down: Some(2 * MINUTE), gone: Some(HOUR) };
    let ends = [
        (None, Verdict::Stalled, 60),
        (Some(ExitStatus::Exited { code: 1 }), Verdict::Down, 120),
        (Some(ExitStatus::Exited { code: 0 }), Verdict::Gone, 3_600),
    ];
    for (death, verdict, seconds) in ends {
        let mut world = with_rule(kept);
        if let Some(death) = death {
            end(&mut world, PID, death);
        }
        world.pass(at(seconds - 1));
        assert_eq!(world.verdict(PID), Some(verdict));
        world.pass(at(seconds + 1));
        assert_eq!(world.verdict(PID), None, "{verdict:?}");
        assert_eq!(world.verdict(PID + 1), Some(Verdict::Stalled), "no rule is for it");
    }
}

#[test]
fn a_state_of_which_the_rule_says_nothing_is_kept_by_default() {
    let mut world = with_rule(ForgetAfter { down: Some(HOUR), ..ForgetAfter::default() });
    end(&mut world, PID, ExitStatus::Exited { code: 0 });
    world.pass(at(61));
    assert_eq!(world.verdict(PID), None);
}

#[test]
fn other_rules_hold_for_those_who_are_silent_already() {
    let mut world = with_rule(ForgetAfter::default());
    end(&mut world, PID, ExitStatus::Exited { code: 1 });
    world.pass(at(600));
    assert_eq!(world.verdict(PID), Some(Verdict::Down));
    world.tracker.handle_rules(rules(ForgetAfter::all(MINUTE)), &ExpectedAgents::default(), at(600));
    world.pass(at(602));
    assert_eq!((world.verdict(PID), world.verdict(PID + 1)), (None, Some(Verdict::Stalled)));
    let longer = rules(ForgetAfter::all(48 * HOUR));
    world.tracker.handle_rules(longer, &ExpectedAgents::default(), at(602));
    world.pass(at(86_402));
    assert_eq!(world.verdict(PID + 1), None, "the default is a day");
}
