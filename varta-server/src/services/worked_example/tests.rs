//! Tests of the example: its options, its metric, and its end.

use clap::Parser;
use varta_proto::control::AgentName;

use crate::domain::tracker::tests::sample;
use crate::services::context::Context;
use crate::services::worked_example::service::WorkedExample;
use crate::services::worked_example::{WorkedExampleArgs, WorkedExampleOptions};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    worked_example: WorkedExampleArgs,
}

fn options(words: &[&str]) -> Option<WorkedExampleOptions> {
    Command::try_parse_from(["command"].iter().chain(words)).unwrap().worked_example.options()
}

#[test]
fn a_name_that_no_agent_can_have_is_refused_by_its_option() {
    assert_eq!(options(&[]), None);
    let with_name = |name: String| WorkedExampleOptions { agent: name };
    assert_eq!(options(&["--worked-example-agent=billing"]), Some(with_name("billing".to_owned())));
    with_name("n".repeat(AgentName::MAX_LEN)).check().unwrap();
    for length in [0, AgentName::MAX_LEN + 1] {
        let name = "n".repeat(length);
        let refused = with_name(name.clone()).check().unwrap_err().to_string();
        assert!(refused.starts_with(&format!("--worked-example-agent: `{name}`: ")), "{refused}");
    }
}

#[tokio::test]
async fn all_transitions_of_the_agent_are_counted_before_the_task_ends_and_those_of_others_are_not() {
    let (mut context, _queries) = Context::for_test();
    let metrics = context.registry.handle();
    WorkedExample::open(options(&["--worked-example-agent=billing"])).start(&mut context);
    let feeds = context.take_subscribers();
    assert_eq!(feeds.len(), 1);
    for agent in ["billing", "other", "billing"] {
        feeds[0].put(&sample::transition(agent), false);
    }
    context.run_until(async { drop(feeds) }).await.unwrap();
    let text = metrics.render();
    assert!(text.contains("\nvarta_worked_example_transitions_total 2\n"), "{text}");
}

#[tokio::test]
async fn without_an_agent_the_metric_is_zero_and_nothing_runs() {
    let (mut context, _queries) = Context::for_test();
    WorkedExample::open(options(&[])).start(&mut context);
    assert!(context.take_subscribers().is_empty());
    let text = context.registry.handle().render();
    assert!(text.contains("\nvarta_worked_example_transitions_total 0\n"), "{text}");
}
