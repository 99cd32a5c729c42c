//! Every metric family by name, with the sentence that explains it. Names are a contract with people's alert rules.

/// A family's name and its HELP text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $name:literal, $help:literal;)*) => {
        $(pub(crate) const $constant: Family = Family { name: $name, help: $help };)*

        #[cfg(test)]
        pub(crate) const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    // Datagrams.
    FRAMES = "varta_frames_total",
        "Datagrams received, and frames found in pages of memory, by transport and by what became of them: each is in exactly one row.";
    DECODE_ERRORS = "varta_decode_errors_total", "Datagrams that are no valid frame, by the first rule that they break.";
    TRUNCATED = "varta_truncated_datagrams_total", "Datagrams that do not have the length of a frame.";
    AUTH_FAILURES = "varta_frame_auth_failures_total",
        "Frames whose sender the kernel does not vouch for, is not allowed, or is not the process that the frame names.";
    DECRYPT_FAILURES = "varta_frame_decrypt_failures_total", "Sealed datagrams that no key opens.";
    REPLAY_REFUSED = "varta_replay_refused_total",
        "Sealed datagrams refused though a key opens them: they came before, or began a session for which there was no room.";
    KERNEL_DROPS = "varta_kernel_drops_total",
        "Datagrams that the kernel threw away because a socket's queue was full, by transport.";
    UDP_RECEIVE_BUFFER = "varta_udp_receive_buffer_bytes",
        "Bytes of datagrams that fit the queue of a UDP socket, as the kernel granted and counts them.";
    SHM_PAGES = "varta_shm_pages", "Pages of memory that agents share with this server.";
    SHM_CAPACITY = "varta_shm_capacity", "Pages for which there is room (--max-shm-agents).";
    SHM_REFUSED = "varta_shm_refused_total",
        "Pages of memory that were not taken, by reason; their agents go on by datagrams.";
    SOURCE_LIMITED = "varta_source_limited_total",
        "Beats of new agents refused because their address had introduced enough (--max-agents-per-source).";
    IO_ERRORS = "varta_io_errors_total", "Failures to receive from a socket.";
    RATE_LIMITED = "varta_rate_limited_total", "Beats refused because too many came, from one pid or in all.";
    OUT_OF_ORDER = "varta_out_of_order_total", "Beats refused because their nonce is old or repeated.";
    NONCE_WRAPS = "varta_nonce_wrap_total", "Sessions whose nonce went round to 0.";

    // The tracker.
    AGENTS = "varta_agents", "Agents known, by what is concluded about them.";
    PIDS_TRACKED = "varta_watch_pids_tracked", "Agents known, silent ones included.";
    CAPACITY = "varta_tracker_capacity", "Agents for which there is room (--max-agents).";
    CAPACITY_EXCEEDED = "varta_tracker_capacity_exceeded_total", "Beats of new agents refused because there was no room.";
    EVICTED = "varta_tracker_evicted_total", "Agents forgotten after a long silence (--forget-after).";
    TRANSITIONS = "varta_transitions_total", "Changes of verdict, by the new one and its cause.";
    INCIDENTS = "varta_incidents_total",
        "Times at which ten or more agents of one origin came to be stalled or down within a second.";
    DETECTION_LATENCY = "varta_detection_latency_seconds",
        "From the moment at which a change could first have been known to the moment at which it was.";
    DETECTION_TIME = "varta_detection_time_seconds",
        "How long agents had been silent when they were first called stalled or down: from the last beat to the verdict.";
    MISTAKES = "varta_mistakes_total",
        "Verdicts stalled about agents that were beating all along: their beats were late or lost.";
    MISTAKE_DURATION = "varta_mistake_duration_seconds", "From such a mistake to the beat that took it back.";
    BLIND_PERIODS = "varta_blind_periods_total", "Times at which this server could not see for a while, and moved deadlines.";
    CLAMPED_STAMPS = "varta_clamped_stamps_total", "Beats whose receive time lay before that of an earlier one.";
    LOOKS_REFUSED = "varta_looks_refused_total",
        "Silent agents whose process was not looked at, because there were too many to look at.";
    DEATHS_UNWATCHED = "varta_unwatched_processes_total",
        "Processes whose end is not noticed at once, because descriptors have run out or the kernel refused one.";
    SINK_DROPPED = "varta_sink_dropped_total",
        "Changes that a sink did not take: it was too slow, or more of a kind that costs nothing came than it takes.";
    STATE_WRITE_ERRORS = "varta_state_write_errors_total", "Failures to write to the directory of --state-dir.";
    EVENTS_WRITE_ERRORS = "varta_events_write_errors_total", "Failures to write to the file of --events-file.";
    RECORDING_DROPPED = "varta_recording_dropped_total",
        "Records that are missing in the recording of --record, because the disk was too slow.";
    RECORDING_BYTES = "varta_recording_bytes", "The length of the recording of --record; 0 without one.";
    RECORDING_ACTIVE = "varta_recording_active",
        "1 while what arrives is recorded; 0 without --record, and when that is as long as it may be or failed.";

    // Recovery.
    RECOVERY_ACTIONS = "varta_recovery_actions_total", "Steps of recovery that were taken, by what came of them.";
    RECOVERY_REFUSED = "varta_recovery_refused_total", "Agents about which nothing was done, for now or for good, by reason.";
    RECOVERY_RUNNING = "varta_recovery_running", "Commands that run at the moment.";
    AUDIT_MISSING = "varta_audit_missing_total", "Records that were not on the disk in time, or are not in --audit-log at all.";
    RECOVERY_AGENTS = "varta_recovery_agents", "Agents that recovery is concerned with at the moment.";
    // Maintenance.
    PAUSES = "varta_pauses", "Pauses in force: each is a pattern, and whose names fit it alarm nobody.";
    CONTROL_REQUESTS = "varta_control_requests_total",
        "Requests on the control socket: done (ok), understood and not done (refused), or not understood (malformed).";
    // Who is told.
    ALERTS_FIRING = "varta_alerts_firing", "Alerts that fire (--alertmanager, --webhook).";
    NOTIFICATIONS = "varta_notifications_total",
        "Requests to Alertmanagers and to the webhook, by what became of them; ends of alerts and notices given up.";

    // The server itself.
    UPTIME = "varta_watch_uptime_seconds", "Time since this server started.";
    BUILD_INFO = "varta_build_info", "1, with version and commit of this server.";
    LOG_DROPPED = "varta_log_lines_dropped_total", "Log lines dropped because standard error was too slow.";
    UNIX_QUEUE = "varta_unix_max_dgram_qlen",
        "Datagrams that wait in a Unix socket's queue, less one, before the kernel refuses more (net.unix.max_dgram_qlen).";
    AGENT_ROWS_OMITTED = "varta_agent_rows_omitted", "Agents without rows of their own in this scrape (--agent-metrics).";

    // One row for each agent.
    BEATS = "varta_beats_total", "Beats accepted from this agent.";
    STALLS = "varta_stalls_total", "How often this agent was called stalled.";
    AGENT_MISTAKES = "varta_agent_mistakes_total",
        "How often this agent was called stalled though it was beating all along, since this server started.";
    STATUS = "varta_status", "What this agent reports: 0 ok, 1 degraded, 2 critical; 3 when it is silent.";
    AGENT_UP = "varta_agent_up", "1 while this agent is well, 0 when it is cause for alarm.";
    LAST_BEAT = "varta_agent_last_beat_timestamp_seconds", "Unix time of this agent's last beat.";
    STALL_AFTER = "varta_agent_stall_after_seconds", "How long this agent may be silent.";
    PAYLOAD = "varta_agent_payload", "The number that this agent sent with its last beat.";
    RESTARTS = "varta_agent_restarts_total",
        "Processes that took the place of one with the same name that was down or gone.";
    BEATS_LOST = "varta_agent_beats_lost_total", "Beats that this agent sent, by its nonces, and that did not arrive.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for family in ALL {
            assert!(family.name.starts_with("varta_"), "{}", family.name);
            assert!(
                family.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{}",
                family.name
            );
            assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{}", family.name);
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let distinct: std::collections::HashSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(distinct.len(), ALL.len());
    }
}
