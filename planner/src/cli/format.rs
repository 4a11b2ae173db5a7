//! The choice between text and JSON that all commands with results share.

use clap::ValueEnum;

// No doc comments on the variants: clap would spread one line of help over five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// The option `--format` of subcommands that print data.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FormatArg {
    /// The output format: text for people, or one JSON value.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}
