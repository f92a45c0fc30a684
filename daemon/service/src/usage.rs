//! Command lines: parsed by clap, refused on one line.

use clap::Parser;
use clap::error::ErrorKind;

use crate::failure::Failure;

/// Parses the command line of this process. Help and version are printed and end it.
///
/// # Errors
/// What is wrong, on one line, and where to read more.
pub fn parse<A: Parser>() -> Result<A, Failure> {
    A::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => Failure::Input(one_line(&error.to_string(), A::command().get_name())),
    })
}

/// The first paragraph of what clap says, on one line, and where to read more.
fn one_line(message: &str, program: &str) -> String {
    let paragraph: Vec<&str> = message
        .trim_start_matches("error: ")
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    format!("{}; see `{program} --help`", paragraph.join(" "))
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn what_clap_says_becomes_one_line() {
        let said = "error: the following required arguments were not provided:\n  --policy <FILE>\n\
                    \nUsage: x\n";
        assert_eq!(
            one_line(said, "xdpgate"),
            "the following required arguments were not provided: --policy <FILE>; \
             see `xdpgate --help`"
        );
    }
}
