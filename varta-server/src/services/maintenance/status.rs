//! What the server says of itself and of the agents in alarm, for `varta-server status`.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use varta_proto::control::AgentName;

use crate::base::clock::{Clock, wall_now};
use crate::base::time::{MonoTime, WallTime, millis};
use crate::base::version::VERSION;
use crate::domain::describe::describe;
use crate::domain::tracker::{JobStatus, Verdict};
use crate::engine::query::{Query, population};
use crate::metrics::faults::Faults;
use crate::services::alarms::{Alarm, Alarms};
use crate::services::maintenance::acks::AckService;
use crate::services::maintenance::examination::ServerFacts;
use crate::services::maintenance::pauses::Pauses;
use crate::services::maintenance::protocol::MAX_RESPONSE_LEN;

/// The most alarms that are listed.
pub(crate) const MAX_LISTED: usize = 500;
/// The most bytes of them: an alarm may have thousands, by its dossier.
const MAX_LISTED_LEN: usize = 3 << 20;

/// The most jobs that are listed.
pub(crate) const MAX_LISTED_JOBS: usize = 500;

// A job has a name and a few times, and what else the answer has is short.
const _: () = {
    let jobs = MAX_LISTED_JOBS * (6 * AgentName::MAX_LEN + 512);
    assert!(MAX_LISTED_LEN + jobs + (64 << 10) <= MAX_RESPONSE_LEN);
};

/// What the answer is made of.
#[derive(Debug)]
pub(super) struct StatusDesk {
    pub(super) alarms: Alarms,
    pub(super) clock: Clock,
    pub(super) host: Arc<str>,
    pub(super) faults: Faults,
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) facts: ServerFacts,
}

impl StatusDesk {
    /// The status; `None` when the server stops.
    pub(super) async fn report(&self, pauses: &Pauses, acks: &AckService) -> Option<Value> {
        let population = population(&self.queries).await?;
        let jobs = self.jobs().await?;
        let now = self.clock.now();
        let wall = wall_now();
        let (alarms, count) = self.alarms(MAX_LISTED, pauses, acks).await?;
        let (is_ready, faults) = self.faults.report(true);
        let agents: Map<_, _> = Verdict::NAMES
            .iter()
            .zip(population)
            .map(|(name, count)| ((*name).to_owned(), json!(count)))
            .collect();
        Some(json!({
            "version": VERSION,
            "host": &*self.host,
            "pid": std::process::id(),
            "uptime_ms": millis(now - MonoTime::START),
            "ready": is_ready,
            "faults": faults.lines().collect::<Vec<_>>(),
            "agents": agents,
            "pauses": pauses.look(|list| list.iter().filter(|pause| pause.is_in_force(wall)).count()),
            "jobs_in_all": jobs.len(),
            "jobs": jobs.iter().take(MAX_LISTED_JOBS).map(of_job).collect::<Vec<_>>(),
            "alarms_in_all": count,
            "alarms": alarms,
        }))
    }

    async fn jobs(&self) -> Option<Vec<JobStatus>> {
        let (answer, answered) = oneshot::channel();
        self.queries.send(Query::Jobs(answer)).await.ok()?;
        answered.await.ok()
    }

    /// The worst alarms, at most so many, and how many there are; `None` when the server stops.
    pub(super) async fn alarms(
        &self,
        most: usize,
        pauses: &Pauses,
        acks: &AckService,
    ) -> Option<(Vec<Value>, usize)> {
        let (alarms, count) = self.alarms.worst(most.min(MAX_LISTED), self.clock.now());
        if alarms.is_empty() {
            return Some((Vec::new(), count));
        }
        let acknowledged = acks.acknowledged().await?;
        let wall = wall_now();
        let listed = alarms.iter().map(|alarm| {
            let agent = &alarm.change.agent;
            self.alarm(alarm, pauses.is_paused(&agent.name, wall), acknowledged.contains(agent))
        });
        Some((within(listed, MAX_LISTED_LEN), count))
    }

    /// An alarm, in the form that the record of its change has.
    fn alarm(&self, alarm: &Alarm, is_paused: bool, is_acknowledged: bool) -> Value {
        let Alarm { problem, change, since } = alarm;
        let mut fields = json!(change.fields().on_host(&self.host));
        fields["id"] = json!(change.agent.instance(&self.host));
        fields["problem"] = json!(problem.as_str());
        fields["since"] = json!(since.map(|since| since.to_string()));
        fields["summary"] = match since {
            Some(_) => json!(describe(change)),
            // Nothing else of the change is known.
            None => {
                fields["cause"] = Value::Null;
                json!(format!(
                    "{} is {}; this server has not seen how it came to be so",
                    change.agent, change.to
                ))
            }
        };
        fields["paused"] = json!(is_paused);
        fields["acknowledged"] = json!(is_acknowledged);
        fields
    }
}

fn of_job(job: &JobStatus) -> Value {
    let text = |at: Option<WallTime>| at.map(|at| at.to_string());
    json!({
        "name": &*job.name,
        "late_since": text(job.late_since),
        "next_due": text(job.next_due),
        "running": job.running_since.len(),
        "running_since": text(job.running_since.first().copied()),
        "last_end": text(job.last_end),
        "last_success": text(job.last_success),
        "last_duration_ms": job.last_duration.map(millis),
    })
}

/// The first of these whose texts have at most so many bytes together.
fn within(values: impl Iterator<Item = Value>, most: usize) -> Vec<Value> {
    let mut length = 0;
    values
        .take_while(|value| {
            length += value.to_string().len();
            length <= most
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_alarms_are_listed_as_there_is_room_for() {
        let values = || ["a", "b", "c"].into_iter().map(Value::from);
        assert_eq!(within(values(), 9).len(), 3);
        assert_eq!(within(values(), 8), ["a", "b"]);
        assert!(within(values(), 0).is_empty());
    }
}
