//! What the engine says for who looks into it, at the levels debug and trace. Where these are off, each call costs
//! a look at the level.

use crate::base::time_zone::TimeZone;
use crate::domain::beat::{ControlMessage, Origin, ReceivedControl, Transport};
use crate::domain::outcome::{FrameOutcome, OutcomeCounts};
use crate::domain::process::{Dossier, InspectionDepth, ProcessId};
use crate::domain::tracker::Transition;

/// Beats of a batch that the tracker refused.
#[inline]
pub(super) fn debug_refusals(transport: Transport, counts: &OutcomeCounts) {
    if !tracing::enabled!(target: "varta::engine", tracing::Level::DEBUG) {
        return;
    }
    let labels = FrameOutcome::labels();
    for (row, count) in counts.rows().filter(|(row, _)| *row != FrameOutcome::Accepted.index()) {
        tracing::debug!(
            target: "varta::engine",
            transport = transport.as_str(),
            reason = labels[row],
            count,
            "{count} of the beats that came by {} are refused: {}",
            transport.as_str(),
            labels[row]
        );
    }
}

/// A control message that the tracker refused because of who sent it, which its sender does not see.
pub(super) fn warn_of_refused(control: &ReceivedControl, outcome: FrameOutcome) {
    let ControlMessage::Report(report) = &control.said else { return };
    let Origin::Named { uid } = control.sender.origin else { return };
    let (name, reason) = (report.name.as_str(), FrameOutcome::labels()[outcome.index()]);
    match (outcome, &report.declared) {
        (FrameOutcome::NameTaken, _) => tracing::warn!(
            target: "varta::engine", uid, agent = name, reason,
            "what a process of uid {uid} says of {name} is refused: the name belongs to another user, until that agent is \
             forgotten; give the other another name"
        ),
        (FrameOutcome::ScheduleRefused, Some(declared)) => {
            let fault = declared.job(&report.name, uid, &TimeZone::utc()).err().unwrap_or_default();
            tracing::warn!(
                target: "varta::engine", uid, agent = name, reason,
                "the schedule that a process of uid {uid} declares for {name} is refused: {fault}; see docs/SCHEDULES.md"
            );
        }
        _ => {}
    }
}

/// A verdict, with how fast it was given.
pub(super) fn debug_verdict(transition: &Transition) {
    tracing::debug!(
        target: "varta::engine",
        agent = %transition.agent,
        to = transition.to.as_str(),
        cause = transition.cause.as_str(),
        latency_us = transition.detection_latency.map(|latency| latency.as_micros()),
        "verdict on {}: {} ({}), after {:.3?} of silence with a deadline of {:?}",
        transition.agent,
        transition.to,
        transition.cause,
        transition.silence,
        transition.stall_after
    );
}

/// A process is inspected, because its agent is silent.
pub(super) fn debug_look(process: ProcessId, depth: InspectionDepth) {
    let pid = process.pid;
    match depth {
        InspectionDepth::Quick => tracing::trace!(
            target: "varta::engine",
            pid,
            "process {pid} is sampled: half of its deadline has passed without a beat"
        ),
        InspectionDepth::Full => tracing::debug!(
            target: "varta::engine",
            pid,
            "the deadline of process {pid} has passed without a beat; it is inspected before the verdict"
        ),
    }
}

/// What an inspection has found.
pub(super) fn debug_evidence(process: ProcessId, dossier: Option<&Dossier>) {
    let pid = process.pid;
    match dossier {
        Some(dossier) if dossier.look.details.is_none() => {}
        Some(dossier) => {
            tracing::debug!(target: "varta::engine", pid, "process {pid} was inspected: {dossier}");
        }
        None => tracing::debug!(target: "varta::engine", pid, "process {pid} could not be inspected"),
    }
}
