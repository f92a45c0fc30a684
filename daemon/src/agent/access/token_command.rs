//! `xdpgated token new`.

use std::io::Write;

use clap::Subcommand;

use super::{Role, tokens};
use crate::Failure;

/// What is done with tokens.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::agent) enum TokenCommand {
    /// Make a token: print it, once, and its entry for the file that api.tokens_file names
    ///
    /// The token goes to whoever is to use it, as the content of a file for `xdpgate --token-file`. The
    /// daemon never needs it: the entry has its SHA-256. It is known after `systemctl reload xdpgated`, or
    /// SIGHUP.
    New {
        /// Whose it is: this name is in the audit lines
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it lets them do
        #[arg(long, value_enum)]
        role: Role,
    },
}

impl TokenCommand {
    pub(in crate::agent) fn run(&self) -> Result<(), Failure> {
        let Self::New { name, role } = self;
        if name.is_empty() || name.len() > 64 || name.contains(char::is_control) {
            return Err(Failure::input(
                "--name",
                "it must have 1 to 64 bytes, none of control",
            ));
        }
        let (token, entry) = tokens::fresh(name, *role).map_err(Failure::operation)?;
        let text = format!(
            "# The token, shown only now:\n{token}\n\n# Its entry in api.tokens_file:\n{entry}"
        );
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| Failure::output(&e))
    }
}
