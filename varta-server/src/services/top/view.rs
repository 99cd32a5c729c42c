//! Draws what is shown, on any size of screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table, TableState, Wrap};

use crate::base::visible::visible_text;
use crate::domain::tracker::Verdict;
use crate::services::top::model::{Model, SORTS, Typing};
use crate::services::top::rows::{Detail, Row};

/// The columns of the bar that shows a silence against its deadline.
const BAR: u64 = 10;
const KEYS: &str = "up/down select  enter follow  / filter  s sort  p pause  r resume  q quit";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let detail = if model.wanted.followed.is_some() { frame.area().height / 2 } else { 0 };
    let [head, state, body, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(detail),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(model)), head);
    frame.render_widget(Paragraph::new(condition(model)), state);
    draw_list(frame, model, body);
    if detail > 0 {
        draw_detail(frame, model.detail.as_ref(), below);
    }
    frame.render_widget(Paragraph::new(KEYS).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

/// How many agents there are.
fn summary(model: &Model) -> String {
    let (_, sort) = SORTS[model.wanted.sort % SORTS.len()];
    let Some(list) = &model.list else { return "waiting for the server".to_owned() };
    let counts = Verdict::NAMES.iter().filter_map(|state| Some((state, list.counts.get(*state)?.as_u64()?)));
    let counts: Vec<_> =
        counts.filter(|(_, count)| *count > 0).map(|(state, count)| format!("{count} {state}")).collect();
    let agents = match list.total {
        0 => "no agents".to_owned(),
        1 => format!("1 agent: {}", counts.join(", ")),
        total => format!("{total} agents: {}", counts.join(", ")),
    };
    let shown = list.agents.len() as u64;
    let matched = match list.matched {
        matched if matched > shown => format!("; the first {shown} of {matched}"),
        matched if matched < list.total => format!("; {matched} match"),
        _ => String::new(),
    };
    format!("{agents}{matched}; {sort}")
}

/// What is typed, what has been done, or that the server is gone.
fn condition(model: &Model) -> Line<'static> {
    let alarm = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    if let Some(fault) = &model.lost {
        return Line::styled(format!("the server does not answer: {}", visible_text(fault)), alarm);
    }
    match &model.typing {
        Typing::Filter => Line::from(format!("filter: {}_", visible_text(&model.wanted.search))),
        Typing::Pause { name, length } => Line::from(format!(
            "pause {} for: {}_ (enter: do it, escape: do not)",
            visible_text(name),
            visible_text(length)
        )),
        Typing::Nothing => match (&model.message, model.wanted.search.as_str()) {
            (Some(message), _) => Line::from(message.clone()),
            (None, "") => Line::default(),
            (None, search) => Line::from(format!("filter: {} (escape: without)", visible_text(search))),
        },
    }
}

fn draw_list(frame: &mut Frame<'_>, model: &mut Model, area: Rect) {
    let widths = [
        Constraint::Length(9),
        Constraint::Fill(3),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(12),
        Constraint::Length(9),
        Constraint::Fill(2),
    ];
    let head = ["STATE", "NAME", "PID", "SILENT", "OF DEADLINE", "REPORTS", "WHY"];
    model.page = usize::from(area.height).saturating_sub(1).max(1);
    let rows = model.rows().iter().map(|row| {
        let pid = row.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let silence = row.silence_ms.map(duration).unwrap_or_default();
        let mark = if row.paused { " (paused)" } else { "" };
        let why = row.problem.as_ref().and(row.cause.as_ref()).map(|cause| visible_text(cause));
        TableRow::new([
            Cell::from(Span::styled(visible_text(&row.state), style(row))),
            Cell::from(format!("{}{mark}", visible_text(&row.name))),
            Cell::from(pid),
            Cell::from(silence),
            Cell::from(bar(row)),
            Cell::from(visible_text(&row.status)),
            Cell::from(why.unwrap_or_default()),
        ])
    });
    let table = Table::new(rows, widths)
        .header(TableRow::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(model.cursor());
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_detail(frame: &mut Frame<'_>, detail: Option<&Detail>, area: Rect) {
    let block = Block::new().borders(Borders::TOP);
    let Some(Detail { agent, transitions }) = detail else {
        return frame.render_widget(Paragraph::new("this agent is not known").block(block), area);
    };
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), visible_text);
    let silence = agent.silence_ms.map_or_else(|| "-".to_owned(), duration);
    let facts = [
        format!("{}: {}, reports {} {}", agent.id, agent.state, agent.status, agent.payload),
        format!(
            "silent for {silence} of {}; transport {}",
            duration(agent.stall_after_ms),
            text(&agent.transport)
        ),
        format!(
            "{} beats, {} lost; unit {}; since {}",
            agent.beats,
            agent.lost,
            text(&agent.unit),
            text(&agent.since)
        ),
    ];
    let facts = facts.into_iter().chain(agent.summary.clone());
    let changes = transitions.iter().map(|change| format!("{} {}", change.at, change.summary));
    let lines: Vec<Line<'_>> = facts.chain(changes).map(|line| Line::from(visible_text(&line))).collect();
    let title = Span::styled(visible_text(&agent.name), style(agent));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block.title(title)), area);
}

fn style(row: &Row) -> Style {
    match (row.problem.is_some(), row.paused, row.state.as_str()) {
        (true, true, _) => Style::new().fg(Color::Yellow),
        (true, false, _) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        (false, _, "up") => Style::new().fg(Color::Green),
        _ => Style::new(),
    }
}

/// The silence against the deadline: full when it is over.
fn bar(row: &Row) -> String {
    let Some(silence) = row.silence_ms.filter(|_| row.stall_after_ms > 0) else { return String::new() };
    let full = (silence.saturating_mul(BAR) / row.stall_after_ms).min(BAR);
    let count = usize::try_from(full).unwrap_or(0);
    format!("{}{}", "#".repeat(count), ".".repeat(usize::try_from(BAR).unwrap_or(0) - count))
}

/// A time in two units at most, in eight columns.
fn duration(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, millis % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::services::top::model::tests::{list, model};
    use crate::services::top::model::{Key, Update};
    use crate::services::top::rows::Change;

    fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_screen_of_80_by_24_has_the_list_and_the_keys() {
        let mut model = model(&["billing", "mail"]);
        let lines = screen(&mut model, 80, 24);
        assert_eq!(lines[0], "2 agents: ; worst first");
        assert!(lines[2].starts_with("STATE") && lines[2].contains("OF DEADLINE"), "{lines:#?}");
        assert!(lines[3].starts_with("up") && lines[3].contains("billing"), "{lines:#?}");
        assert!(lines[3].contains("0.1s") && lines[3].contains("#........."), "{lines:#?}");
        assert_eq!(lines[23], KEYS);
    }

    #[test]
    fn no_size_of_the_screen_is_too_small() {
        let mut model = model(&["billing"]);
        model.key(Key::Enter);
        for (width, height) in [(1, 1), (2, 3), (20, 5), (300, 100)] {
            assert_eq!(screen(&mut model, width, height).len(), usize::from(height));
        }
    }

    #[test]
    fn a_lost_server_is_told_above_the_last_list_and_no_name_writes_on_the_terminal() {
        let mut model = model(&["a\u{1b}[2J"]);
        model.update(Update::Lost("no server answers here".to_owned()));
        let lines = screen(&mut model, 80, 24);
        assert_eq!(lines[1], "the server does not answer: no server answers here");
        assert!(lines[3].contains("a?[2J"), "{lines:#?}");
    }

    #[test]
    fn the_agent_that_is_followed_is_shown_with_its_changes() {
        let mut model = model(&["billing"]);
        model.key(Key::Enter);
        let agent = list(&["billing"]).agents.remove(0);
        let change =
            Change { at: "2026-11-23T16:00:00.000Z".to_owned(), summary: "billing[7] is up".to_owned() };
        let detail = Some(Box::new(Detail { agent, transitions: vec![change] }));
        model.update(Update::Fresh { list: Box::new(list(&["billing"])), detail });
        let lines = screen(&mut model, 80, 24).join("\n");
        assert!(lines.contains("billing[7]@h: up, reports ok 0"), "{lines}");
        assert!(lines.contains("2026-11-23T16:00:00.000Z billing[7] is up"), "{lines}");
    }

    #[test]
    fn a_time_has_two_units_at_most() {
        let times = [900, 9_900, 59_000, 61_000, 3_660_000, 90_000_000].map(duration);
        assert_eq!(times, ["0.9s", "9.9s", "59s", "1m01s", "1h01m", "1d01h"]);
    }
}
