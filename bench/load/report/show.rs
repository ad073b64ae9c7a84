//! `ringmq-bench report`: a page, CSV or histograms of results that were kept.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::files::Files;
use super::kept::Document;

#[derive(Args, Clone, Debug)]
pub(crate) struct ShowOptions {
    /// Results that were kept: of --json or --output, or of scripts/compare; several are put side by side
    #[arg(required = true, value_name = "FILE.json")]
    results: Vec<PathBuf>,
    #[command(flatten)]
    files: Files,
}

pub(crate) fn run(options: &ShowOptions) -> Result<ExitCode, String> {
    if options.files.is_empty() {
        return Err("what is to be written? --html FILE, --csv FILE or --hgrm DIR".to_string());
    }
    let documents: Result<Vec<Document>, String> =
        options.results.iter().map(|path| Document::read(path)).collect();
    for path in options.files.write(&documents?)? {
        eprintln!("written to {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
