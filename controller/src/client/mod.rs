//! The client commands of `xdpgate-controller`: they ask a running controller over its REST API.
//!
//! A command, its arguments and what it prints are in one file each; `remote` talks to the controller, `out` prints.

mod apply;
mod change;
mod events;
mod feed;
mod fleet;
mod group;
mod import;
mod input;
mod login;
mod node;
mod out;
mod policy;
mod remote;
mod rollout;
mod rule;
mod saved;
mod secret;
mod set;
mod user;
pub mod xdrop;
mod yaml;

pub use remote::Remote;

use clap::Subcommand;
use xdpgate_service::Failure;

/// Commands that ask a controller, and those that make files for it.
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// Log in to a controller, and keep a token for the commands below
    #[command(after_help = login::LOGIN_HELP)]
    Login(login::Login),
    /// Revoke the token that `login` keeps, and forget it
    #[command(after_help = "Example:\n  xdpgate-controller logout")]
    Logout,
    /// Show as whom commands are sent, and what that may
    #[command(after_help = "Example:\n  xdpgate-controller whoami")]
    Whoami,
    /// Show the fleet at a glance
    #[command(after_help = "Example:\n  xdpgate-controller status")]
    Status,
    /// Show, apply, compare and revert policies
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Show and change single rules of a policy
    #[command(subcommand)]
    Rule(rule::Rule),
    /// Show, import and change address sets
    #[command(subcommand)]
    Set(set::Set),
    /// Show and change which policies are for which nodes
    #[command(subcommand)]
    Group(group::Group),
    /// List the controllers of the fleet, where there are several
    #[command(after_help = "Example:\n  xdpgate-controller controllers")]
    Controllers,
    /// Show, label, remove and revoke nodes
    #[command(subcommand)]
    Node(node::Node),
    /// Make and revoke what lets nodes join
    #[command(subcommand)]
    JoinToken(node::JoinToken),
    /// Start, follow and end rollouts, which bring a version to nodes stage by stage
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Show and change feeds: lists that others publish, as sets
    #[command(subcommand)]
    Feed(feed::Feed),
    /// The kill switch: put all nodes in a mode, whatever their groups say
    #[command(after_help = MODE_HELP)]
    Mode(fleet::Mode),
    /// Make the controller what files say: policies, sets, groups and feeds
    #[command(after_help = apply::APPLY_HELP)]
    Apply(apply::Apply),
    /// Write policies, sets, groups and feeds to files that `apply` takes
    #[command(after_help = apply::EXPORT_HELP)]
    Export(apply::Export),
    /// Make a policy of the export of another firewall
    #[command(subcommand)]
    Import(import::Import),
    /// Say which sets and rules an address is in
    #[command(after_help = "Example:\n  xdpgate-controller lookup 203.0.113.7")]
    Lookup {
        /// The address
        address: String,
    },
    /// Say what a policy, or what a node shall have, does to a packet; nothing is sent
    #[command(after_help = EVALUATE_HELP)]
    Evaluate(fleet::Evaluate),
    /// Watch the numbers of the fleet
    #[command(after_help = "Example:\n  xdpgate-controller top --every 5s")]
    Top(fleet::Top),
    /// Show the numbers of the fleet, or of a group
    #[command(after_help = "Example:\n  xdpgate-controller stats --group edge")]
    Stats(fleet::Stats),
    /// Follow what happens: changes, nodes that come, go, apply or refuse
    #[command(
        after_help = "Examples:\n  xdpgate-controller events\n  xdpgate-controller events --kind refused --json"
    )]
    Events(events::Events),
    /// Print what Prometheus is told
    #[command(after_help = "Example:\n  xdpgate-controller metrics | grep nodes")]
    Metrics,
    /// Show how far a change has come at the nodes
    #[command(after_help = CHANGES_HELP)]
    Changes(fleet::Changes),
    /// Show who changed what (admin)
    #[command(after_help = "\
Examples:
  xdpgate-controller audit --object policy/web --since 1d
  xdpgate-controller audit --action rule. --actor anna")]
    Audit(fleet::Audit),
    /// Show and change users (admin)
    #[command(subcommand)]
    User(user::User),
    /// Show, make and revoke API tokens
    #[command(subcommand)]
    Token(user::Token),
}

/// Runs one command.
///
/// # Errors
/// Exit code 2 for wrong use and bad files, 1 for what the controller refuses or does not answer.
pub(crate) fn run(remote: &Remote, command: &ClientCommand) -> Result<(), Failure> {
    if let ClientCommand::Import(command) = command {
        return import::run(command);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(Failure::operation)?
        .block_on(ask(remote, command))
}

async fn ask(remote: &Remote, command: &ClientCommand) -> Result<(), Failure> {
    use ClientCommand as C;
    match command {
        C::Login(args) => return login::login(remote, args).await,
        C::Logout => return login::logout(remote).await,
        C::Token(token @ user::Token::New(_)) => {
            let nobody = remote.open_as_nobody()?;
            return user::token(&nobody, &nobody, token).await;
        }
        _ => {}
    }
    let api = &remote.open()?;
    match command {
        // Done above.
        C::Login(_) | C::Logout | C::Import(_) => Ok(()),
        C::Whoami => login::whoami(api).await,
        C::Status => fleet::status(api).await,
        C::Policy(command) => policy::run(api, command).await,
        C::Rule(command) => rule::run(api, command).await,
        C::Set(command) => set::run(api, command).await,
        C::Group(command) => group::run(api, command).await,
        C::Controllers => fleet::controllers(api).await,
        C::Node(command) => node::run(api, command).await,
        C::JoinToken(command) => node::join_token(api, command).await,
        C::Rollout(command) => rollout::run(api, command).await,
        C::Feed(command) => feed::run(api, command).await,
        C::Mode(args) => fleet::mode(api, args).await,
        C::Apply(args) => apply::apply(api, args).await,
        C::Export(args) => apply::export(api, args).await,
        C::Lookup { address } => fleet::lookup(api, address).await,
        C::Evaluate(args) => fleet::evaluate(api, args).await,
        C::Top(args) => fleet::top(api, args).await,
        C::Stats(args) => fleet::stats(api, args).await,
        C::Events(args) => events::run(api, args).await,
        C::Metrics => out::raw(&api.get(&["metrics"]).text().await?),
        C::Changes(args) => fleet::changes(api, args).await,
        C::Audit(args) => fleet::audit(api, args).await,
        C::User(command) => user::run(api, command).await,
        C::Token(command) => user::token(api, api, command).await,
    }
}

const MODE_HELP: &str = "\
dry-run: all nodes judge and count, and let all pass. enforce: all carry verdicts out. as-groups: the kill switch is off.

Examples:
  xdpgate-controller mode                          what is it?
  xdpgate-controller mode dry-run --why 'we drop customers' --wait 99%
  xdpgate-controller mode as-groups";

const EVALUATE_HELP: &str = "\
Examples:
  xdpgate-controller evaluate --policy web --src 203.0.113.7 --dst 192.0.2.1 --protocol tcp --dport 443
  xdpgate-controller evaluate --node n-abcdefghijklmnop --src 2001:db8::1 --dst 2001:db8::2 --protocol icmpv6";

const CHANGES_HELP: &str = "\
Exit code 1 if the share that --wait names is not reached in time.

Examples:
  xdpgate-controller changes 4711
  xdpgate-controller changes 4711 --wait 99% --timeout 2m
  xdpgate-controller changes --policy web --wait 100%";
