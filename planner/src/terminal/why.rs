//! The state of one task on one node, with the chain of reasons that led to it.

use std::fmt::Write as _;

use groundplan_core::knowledge::FIRST_REPORT;

use super::{
    Style,
    format::{count, indent, printed, took},
    reason, rollout,
    status::{behind, confirm, parked_text},
};
use crate::api::types::{InstanceRecord, InstanceState, NodePresence, RolloutSummary, Why, WhyApplied};

/// Whether the task is desired and applied, what it waits for, and what the last rollout did with it and why.
pub(crate) fn text(why: &Why, now_ms: u64, color: bool) -> String {
    let mut out = format!("{} on {}\n", Style::Bold.paint(&why.instance.task.to_string(), color), why.instance.node);
    let unknown = !why.waits_for.is_empty();
    let state = match (why.desired, why.applied) {
        (_, WhyApplied::Not) if unknown => "not applied, and cannot be planned yet",
        _ if unknown => "applied, and stays unchanged: it cannot be planned yet",
        (true, WhyApplied::AsDesired) => "applied as the active commit declares it",
        (true, WhyApplied::Otherwise) => "applied, but not yet as the active commit declares it",
        (true, WhyApplied::Not) => "declared by the active commit, but not applied yet",
        (false, WhyApplied::Not) => "neither declared nor applied",
        (false, WhyApplied::AsDesired | WhyApplied::Otherwise) => "applied, but no longer declared",
    };
    let agent = match why.presence {
        NodePresence::Online => "",
        NodePresence::Offline => "; the node is offline and receives its plan when it is back",
        NodePresence::Unknown => "; the node has never reported: is its agent running, and its key trusted?",
    };
    let _ = writeln!(out, "  {state}{agent}");
    if let Some(trouble) = &why.trouble {
        let _ = writeln!(out, "  {}", Style::Bad.paint(&format!("its node's agent cannot go on: {trouble}"), color));
    }
    if let Some(unsteady) = &why.unsteady {
        let _ = writeln!(out, "  {}", Style::Bad.paint(&format!("{} {unsteady}", why.instance.node), color));
    }
    if let Some(held) = &why.held_key {
        let node = &why.instance.node;
        let _ = writeln!(out, "  {}\n    → {}", Style::Bad.paint(&format!("{node}: {held}"), color), confirm(node));
    }
    if let Some(reason) = &why.degraded {
        let _ = writeln!(out, "  {}", Style::Bad.paint(&format!("degraded: {reason}"), color));
    }
    for line in why.repository.iter().flat_map(|repository| behind(repository, now_ms)) {
        let _ = writeln!(out, "  {}", Style::Bad.paint(&format!("what was pushed since is not known: {line}"), color));
    }
    for what in &why.waits_for {
        let _ = writeln!(out, "    waits for {}", Style::Warn.paint(what, color));
    }
    if let Some(parked) = &why.parked {
        let _ = writeln!(out, "  {} is {}", why.instance.node, Style::Warn.paint(&parked_text(parked, now_ms), color));
    }
    if let Some(off) = &why.off {
        let _ = writeln!(out, "  `when` is false there: {off}");
    }
    if let Some(effect) = why.obligation {
        let _ = writeln!(out, "  {}", Style::Warn.paint(&format!("{effect} pending"), color));
    }
    let (Some(rollout), Some(record)) = (&why.rollout, &why.record) else {
        out.push_str(match why.presence {
            NodePresence::Unknown => {
                "  no rollout has included it: nothing is planned for a node that has never reported\n"
            }
            _ => "  no rollout has included it: neither its inputs nor a trigger of it has changed\n",
        });
        return out;
    };
    write_record(&mut out, why, rollout, record, now_ms, color);
    out
}

/// What a rollout did with the instance, and why.
fn write_record(
    out: &mut String,
    why: &Why,
    rollout: &RolloutSummary,
    record: &InstanceRecord,
    now_ms: u64,
    color: bool,
) {
    let (outcome, style) = rollout::state(&record.state);
    let time = record.duration_ms.map(|ms| format!(" in {}", took(ms))).unwrap_or_default();
    let _ = writeln!(
        out,
        "  rollout {} ({}), {}\n  {} → {}{time}",
        rollout.generation,
        rollout::commit(&rollout.commit),
        rollout::line(rollout, now_ms, color),
        record.action,
        style.paint(&outcome, color),
    );
    if let InstanceState::Waiting { on, others, unknown } = &record.state {
        // What the instance waits for in the active commit is above already.
        let unknown = unknown.iter().filter(|unknown| !why.waits_for.contains(unknown));
        for what in unknown.cloned().chain(on.iter().map(ToString::to_string)) {
            let _ = writeln!(out, "    waits for {what}");
            if what.starts_with(FIRST_REPORT) {
                let next = "is its agent running, and its key trusted? `groundplan park` goes on without the node";
                let _ = writeln!(out, "      → {next}");
            }
        }
        if *others > 0 {
            let _ = writeln!(out, "    waits for {}", count(*others, "more instance"));
        }
    }
    for (depth, reason) in record.reasons.iter().enumerate() {
        let link = if depth == 0 { "because" } else { "because of" };
        let _ = writeln!(
            out,
            "  {:indent$}{} {}",
            "",
            Style::Dim.paint(link, color),
            reason::report(reason),
            indent = depth * 2
        );
    }
    if let Some(output) = &record.output {
        let _ = write!(out, "  output\n{}", indent(&indent(&printed(output))));
    }
}
