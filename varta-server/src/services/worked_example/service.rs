//! Starts the task that counts.

use crate::services::context::Context;
use crate::services::worked_example::metrics::{SINK, counted_transitions};
use crate::services::worked_example::options::WorkedExampleOptions;

/// The capability before it runs. Without an agent it has its metric and nothing else.
#[derive(Debug)]
pub(crate) struct WorkedExample {
    options: Option<WorkedExampleOptions>,
}

impl WorkedExample {
    /// Takes the options. A capability with a file or a socket opens it here, and returns an error when it cannot.
    pub(crate) fn open(options: Option<WorkedExampleOptions>) -> Self {
        WorkedExample { options }
    }

    /// Starts the task that counts. It ends when the subscription ends and all of it is counted.
    pub(crate) fn start(self, context: &mut Context) {
        let counted = counted_transitions(&context.registry);
        let Some(options) = self.options else { return };
        let mut transitions = context.subscribe(SINK);
        context.spawn("worked example", async move {
            while let Some(transition) = transitions.recv().await {
                if *transition.agent.name == *options.agent {
                    counted.increment(1);
                }
            }
            Ok(())
        });
    }
}
