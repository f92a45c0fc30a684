//! What libbpf prints. It is the process's to choose where that goes, not the library's.

use libbpf_rs::PrintLevel;

/// Sends it to `log`. A warning of libbpf comes before an error that we report ourselves, with the
/// mend, so it is for debugging only.
pub(crate) fn print_to_log() {
    libbpf_rs::set_print(Some((PrintLevel::Debug, |level, message| {
        let level = match level {
            PrintLevel::Warn => log::Level::Debug,
            PrintLevel::Info | PrintLevel::Debug => log::Level::Trace,
        };
        log::log!(target: "libbpf", level, "{}", message.trim_end());
    })));
}

/// Keeps it quiet.
pub(crate) fn print_nothing() {
    libbpf_rs::set_print(None);
}
