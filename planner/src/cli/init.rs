//! `groundplan init`: creates a small commented site.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use super::schema::Document;
use crate::terminal::{Failure, Output, Style};

/// Create a small commented site that passes `groundplan check`, in a git repository.
///
/// Overwrites no file. Also writes the JSON schemas that the files refer to, so that editors complete and check the site without a
/// network; `--schemas` writes only these again, for a site that is there, after an upgrade of groundplan.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  groundplan init\n  groundplan init my-site\n  groundplan init --schemas")]
pub(super) struct Args {
    /// The directory of the site; created if missing.
    #[arg(default_value = ".", value_name = "DIR")]
    directory: PathBuf,

    /// Write only the schemas, replacing those of another version.
    #[arg(long)]
    schemas: bool,
}

/// The files that the operator edits.
const FILES: [(&str, &str); 5] = [
    ("site.toml", include_str!("skeleton/site.toml")),
    ("inventory/nodes.toml", include_str!("skeleton/inventory/nodes.toml")),
    ("services/hello/service.toml", include_str!("skeleton/services/hello/service.toml")),
    ("services/hello/message.j2", include_str!("skeleton/services/hello/message.j2")),
    (".taplo.toml", include_str!("skeleton/taplo.toml")),
];

/// The schemas that these files refer to.
const SCHEMAS: [Document; 3] = [Document::Site, Document::Inventory, Document::Service];

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let dir = &args.directory;
    let schemas = SCHEMAS.map(|d| (format!(".groundplan/schemas/{}.schema.json", d.name()), d.text()));
    if args.schemas {
        if !dir.join("site.toml").is_file() {
            return Err(Failure::new(format!("{} has no site.toml", dir.display()))
                .hint("name the top directory of a site, or create one without --schemas"));
        }
        for (path, text) in &schemas {
            write(&dir.join(path), text)?;
            out.print(&format!("  {}\n", dir.join(path).display()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let there: Vec<&str> = FILES.iter().map(|(path, _)| *path).filter(|path| dir.join(path).exists()).collect();
    if !there.is_empty() {
        return Err(Failure::new(format!("{} already has {}", dir.display(), there.join(", ")))
            .hint("nothing was written; choose another directory"));
    }
    // Schemas of an earlier release are replaced: they are generated, so nothing is lost.
    for (path, text) in FILES.iter().map(|(p, t)| (*p, *t)).chain(schemas.iter().map(|(p, t)| (&**p, &**t))) {
        write(&dir.join(path), text)?;
    }
    let repository = git_init(dir)?;
    let shown = if dir.as_os_str() == "." { String::new() } else { format!("{} ", dir.display()) };
    let in_dir = if shown.is_empty() { String::new() } else { format!("-C {shown}") };
    let color = out.color();
    let command = |text: &str| Style::Bold.paint(text, color);
    let mut text = String::new();
    for (path, _) in FILES {
        text.push_str(&format!("  {}\n", dir.join(path).display()));
    }
    text.push_str(&format!("{repository}\nNext:\n"));
    text.push_str(&format!("  {}\n", command(format!("groundplan check {shown}").trim_end())));
    text.push_str(&format!("  {}\n", command(&format!("git {in_dir}add -A && git {in_dir}commit -m 'A site'"))));
    text.push_str(&format!("  {}   # on this machine\n", command(&format!("groundplan up {}", dir.display()))));
    out.print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e| Failure::because(format!("cannot write {}", path.display()), e);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}

/// Creates a repository unless the directory is inside one already; then returns a note about that one.
fn git_init(dir: &Path) -> Result<String, Failure> {
    let git = |args: &[&str]| {
        Command::new("git").arg("-C").arg(dir).args(args).stdin(Stdio::null()).output().map_err(|e| {
            Failure::because("cannot run git", e).hint("the files were written; install git to create the repository")
        })
    };
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if top.status.success() {
        let top = String::from_utf8_lossy(&top.stdout).trim().to_owned();
        if dir.canonicalize().is_ok_and(|dir| dir == Path::new(&top)) {
            return Ok(String::new());
        }
        return Ok(format!(
            "\nNote: {} lies inside the repository {top}; a planner expects site.toml at the top of a repository.\n",
            dir.display()
        ));
    }
    // A name that the user has chosen for new repositories counts (git-config(1), init.defaultBranch); else git warns and takes `master`.
    let chosen = git(&["config", "init.defaultBranch"])?.status.success();
    let branch: &[&str] = if chosen { &[] } else { &["--initial-branch", "main"] };
    let made = git(&[&["init", "--quiet"], branch].concat())?;
    if !made.status.success() {
        let message = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        return Err(Failure::new(format!("git could not create a repository: {message}")));
    }
    Ok(String::new())
}
