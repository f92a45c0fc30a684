//! The screen as text, for pipes and files.

use serde_json::json;

use super::Top;
use super::state::{Feed, State, Update};
use crate::Failure;
use crate::client::out::{GOOD, HEAD, WARN, print, print_json_line, styled};
use crate::client::status;
use crate::client::table::{Align, Table};
use crate::client::{json, remote};

pub(super) fn run(args: &Top) -> Result<(), Failure> {
    remote::run(async {
        let (mut feed, no_events) = Feed::open(args).await?;
        let mut state = State {
            no_events,
            ..Default::default()
        };
        let mut complete = 0;
        loop {
            let update = tokio::select! {
                update = feed.next() => update,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            let update = update.map_err(|status| remote::refused(&args.remote, &status))?;
            let whole = matches!(update, Update::Stats(_));
            state.take(update);
            // The first sample has no rates yet, and hardly any source was seen with the one after it.
            if !whole || state.rates().is_none() {
                continue;
            }
            complete += 1;
            if args.once && complete < 2 {
                continue;
            }
            match args.remote.json {
                true => print_json_line(&object(&state)?)?,
                false => print(&text(&state))?,
            }
            if args.once {
                return Ok(());
            }
        }
    })
}

fn object(state: &State) -> Result<serde_json::Value, Failure> {
    let sources: Vec<_> = state
        .sources
        .top(100)
        .into_iter()
        .map(|(source, samples)| json!({ "source": source, "samples": samples }))
        .collect();
    Ok(json!({
        "status": json::of(&state.status)?,
        "stats": json::of(&state.stats)?,
        "sources": sources,
        "samples": state.sources.samples,
        "lost": state.sources.lost,
    }))
}

fn text(state: &State) -> String {
    let mut text = styled(HEAD, state.headline()) + "\n";
    text += &match state.health() {
        Ok(()) => styled(GOOD, "well\n"),
        Err(problem) => styled(WARN, problem + "\n"),
    };
    if let Some(rates) = state.rates() {
        text += &status::rates_text(rates);
    }
    let mut table = Table::new(&[("SOURCE", Align::Left), ("SAMPLES", Align::Right)]);
    for (source, samples) in state.sources.top(10) {
        table.row([source.to_owned(), samples.to_string()]);
    }
    if !table.is_empty() {
        text += &format!("\n{table}");
    }
    if let Some(why) = &state.no_events {
        text += &format!("\nno sources: {why}\n");
    }
    text + "\n"
}
