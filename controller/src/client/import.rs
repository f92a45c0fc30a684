//! `import`: exports of other firewalls as policies.

use std::fs;
use std::path::PathBuf;

use clap::Subcommand;
use xdpgate_service::Failure;

use super::out::raw;
use super::{input, xdrop};

#[derive(Debug, Clone, Subcommand)]
pub enum Import {
    /// Make a policy of the rules and the whitelist of xdrop
    #[command(after_help = "\
It takes what xdrop's API gives at /api/v1/rules and /api/v1/whitelist. What is not quite as it was is said on stderr. No
controller is asked; docs/from-xdrop.md tells the whole.

Examples:
  xdpgate-controller import xdrop rules.json whitelist.json -o xdrop.yaml
  xdpgate-controller policy apply xdrop xdrop.yaml --plan")]
    Xdrop {
        /// The files; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where to write the policy [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub(super) fn run(command: &Import) -> Result<(), Failure> {
    let Import::Xdrop { files, output } = command;
    let mut texts = Vec::new();
    for file in files {
        texts.push((file.display().to_string(), input::read(file)?));
    }
    let texts = texts
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    let converted = xdrop::convert(texts).map_err(Failure::Faults)?;
    for note in &converted.notes {
        eprintln!("note: {note}");
    }
    match output {
        Some(file) => {
            fs::write(file, &converted.text)
                .map_err(|e| Failure::operation(format!("{}: {e}", file.display())))?;
            eprintln!("{}: {} rules", file.display(), converted.rules);
            Ok(())
        }
        None => raw(&converted.text),
    }
}
