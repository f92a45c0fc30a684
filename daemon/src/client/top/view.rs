//! How it looks.

use std::env;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};
use xdpgate_api::v1::{Rate, VerdictRates};

use super::state::State;
use crate::client::units;

/// Below this the sources are under the rules, not beside them.
const WIDE: u16 = 110;

pub(super) fn render(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    let interfaces = state.interfaces().len() as u16 + 3;
    let rows = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(interfaces.min(area.height / 2)),
        Constraint::Min(3),
        Constraint::Length(1),
    ]);
    let [head, top, rest, foot] = rows.areas(area);
    let halves = [Constraint::Percentage(65), Constraint::Percentage(35)];
    let [rules, sources] = match area.width >= WIDE {
        true => Layout::horizontal(halves).areas(rest),
        false => Layout::vertical(halves).areas(rest),
    };
    draw_head(frame, head, state);
    draw_interfaces(frame, top, state);
    draw_rules(frame, rules, state);
    draw_sources(frame, sources, state);
    let keys = format!(
        "q quit  p {}  s sort: {}  up/down rules",
        if state.paused { "go on" } else { "pause" },
        state.sort.name()
    );
    frame.render_widget(Line::styled(keys, Modifier::DIM), foot);
}

/// A colour, unless NO_COLOR or --color asks for none.
fn color(color: Color) -> Style {
    let never = anstream::ColorChoice::global() == anstream::ColorChoice::Never;
    match never || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        true => Style::new(),
        false => Style::new().fg(color),
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let mut first = state.headline();
    if state.paused {
        first += "  PAUSED";
    }
    let second = match state.health() {
        Err(problem) => Line::styled(problem, color(Color::Red).add_modifier(Modifier::BOLD)),
        Ok(()) if state.status.dry_run => Line::styled(
            "well; nothing is dropped in this mode",
            color(Color::Yellow),
        ),
        Ok(()) => Line::styled("well", color(Color::Green)),
    };
    let text = Text::from(vec![Line::styled(first, Modifier::BOLD), second]);
    frame.render_widget(Paragraph::new(text), area);
}

fn block(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

fn heading(names: Vec<&'static str>) -> Row<'static> {
    Row::new(names).style(Modifier::BOLD)
}

fn draw_interfaces(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let row = |name: &str, rates: Option<&VerdictRates>| {
        let rates = rates.copied().unwrap_or_default();
        let both = |rate: Option<Rate>| {
            let rate = rate.unwrap_or_default();
            [units::rate(rate.packets), units::bits(rate.bits)]
        };
        let cells = [rates.passed, rates.dropped, rates.would_drop].map(both);
        Row::new(std::iter::once(name.to_owned()).chain(cells.into_iter().flatten()))
    };
    let interfaces = state.interfaces();
    let rows = interfaces.iter().map(|i| row(&i.name, i.rates.as_ref()));
    let widths = [Constraint::Fill(2)]
        .into_iter()
        .chain([Constraint::Fill(1); 6]);
    let title = match state.rates() {
        Some(_) => "interfaces".to_owned(),
        None => "interfaces: no rates yet".to_owned(),
    };
    let head = ["INTERFACE", "PASS", "", "DROP", "", "WOULD DROP", ""];
    let table = Table::new(rows, widths)
        .header(heading(head.to_vec()))
        .block(block(title));
    frame.render_widget(table, area);
}

fn draw_rules(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let rules = state.rules();
    let rows = rules.iter().skip(state.scrolled).map(|rule| {
        let matched = rule.matched.unwrap_or_default();
        let style = match (rule.dropped > 0.0, rule.would_drop > 0.0) {
            (true, _) => color(Color::Red),
            (_, true) => color(Color::Yellow),
            _ => Style::new(),
        };
        let cells = [
            rule.id.clone(),
            units::rate(matched.packets),
            units::bits(matched.bits),
            units::rate(rule.dropped),
            units::rate(rule.would_drop),
        ];
        Row::new(cells).style(style)
    });
    let widths = [Constraint::Fill(2)]
        .into_iter()
        .chain([Constraint::Fill(1); 4]);
    let title = match state.scrolled {
        0 => format!("rules: {}", rules.len()),
        scrolled => format!("rules: {}, from {}", rules.len(), scrolled + 1),
    };
    let head = ["RULE", "MATCHED", "", "DROPPED", "WOULD DROP"];
    let table = Table::new(rows, widths)
        .header(heading(head.to_vec()))
        .block(block(title));
    frame.render_widget(table, area);
}

fn draw_sources(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let sources = state.sources.top(area.height.into());
    let rows = sources
        .iter()
        .map(|(source, count)| Row::new([(*source).to_owned(), count.to_string()]));
    let title = match (&state.no_events, state.sources.lost) {
        (Some(why), _) => format!("sources: {why}"),
        (None, 0) => format!("sources of {} samples", state.sources.samples),
        (None, lost) => format!("sources of {} samples, {lost} lost", state.sources.samples),
    };
    let table = Table::new(rows, [Constraint::Fill(3), Constraint::Fill(1)])
        .header(heading(vec!["SOURCE", "SAMPLES"]))
        .block(block(title));
    frame.render_widget(table, area);
}
