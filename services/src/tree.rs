//! All site files of a tree: which they are, the contents of each, and all of them joined.
//!
//! In: paths and bytes. Out: a [`Model`] and every fault. [`parse`] reads one file by itself, so that its result can be reused for as long
//! as path and content stay the same; [`merge`] is cheap and is done for each commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_inventory::{
    Diagnostic, Inventory, Location, Site, hint, merge as inventory_merge,
    parse::{self as inventory_parse, InventoryFile, SiteFile},
};
use groundplan_protocol::ids::{NAME_RULE, ServiceId};

use crate::{
    check,
    model::Catalog,
    parse::{self as service_parse, ServiceFile},
    plugin::Plugins,
};

const SITE: &str = "site.toml";

/// The contents of one file, with its faults; cheap to clone.
#[derive(Debug, Clone)]
pub struct ParsedFile {
    path: Arc<str>,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Site(Arc<SiteFile>),
    Inventory(Arc<InventoryFile>),
    Service(ServiceId, Arc<ServiceFile>),
    /// In a folder whose name no service can have.
    Misnamed,
}

impl ParsedFile {
    /// Whether something may be declared in it that could not be read.
    fn is_unread(&self) -> bool {
        match &self.content {
            Content::Site(file) => file.unread,
            Content::Inventory(file) => file.unread,
            Content::Service(_, file) => file.unread,
            Content::Misnamed => true,
        }
    }
}

/// The contents of all files, joined. In spite of faults it holds what could be read, so that later checks can report theirs.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The site; `None` if there is no `site.toml`, or nothing of it can be read. Beside faults its name may be a stand-in.
    pub site: Option<Site>,
    /// Nodes and groups, as far as they could be read.
    pub inventory: Inventory,
    /// The services, as far as they could be read.
    pub catalog: Catalog,
    /// Paths of the files in which something may be declared that could not be read: see
    /// [`first_faults`](groundplan_inventory::diagnostic::first_faults).
    pub unread: BTreeSet<Arc<str>>,
}

/// What a site file is, by its path.
enum Role<'a> {
    Site,
    Inventory,
    Service(&'a str),
}

fn role(path: &str) -> Option<Role<'_>> {
    if path == SITE {
        return Some(Role::Site);
    }
    if path.starts_with("inventory/") && path.ends_with(".toml") {
        return Some(Role::Inventory);
    }
    let (folder, file) = path.strip_prefix("services/")?.split_once('/')?;
    (file == "service.toml").then_some(Role::Service(folder))
}

/// Whether the file of this path is one that [`parse`] reads.
pub fn wants(path: &str) -> bool {
    role(path).is_some()
}

/// Reads one file, of a path that [`wants`] wants.
pub fn parse(path: &Arc<str>, bytes: &[u8]) -> ParsedFile {
    let content = match role(path) {
        Some(Role::Site) => Content::Site(Arc::new(inventory_parse::site(path, bytes))),
        Some(Role::Inventory) => Content::Inventory(Arc::new(inventory_parse::inventory(path, bytes))),
        Some(Role::Service(folder)) => match ServiceId::new(folder) {
            Ok(id) => Content::Service(id, Arc::new(service_parse::service(path, bytes))),
            Err(_) => Content::Misnamed,
        },
        None => Content::Misnamed,
    };
    ParsedFile { path: path.clone(), content }
}

/// Puts the files of a tree together, in whatever order they come. `paths` are those of all the files of the tree, also those that
/// [`parse`] does not read; `plugins` what its programs add. Without diagnostics, the model is complete and valid in itself; references and templates
/// are checked later. Diagnostics come in the order of their places.
pub fn merge<'a>(
    files: impl IntoIterator<Item = &'a ParsedFile>,
    paths: impl IntoIterator<Item = &'a str>,
    plugins: &Plugins,
) -> (Model, Vec<Diagnostic>) {
    let mut files: Vec<&ParsedFile> = files.into_iter().collect();
    // Which of two declarations is the first one must not depend on the order in which files were read.
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut faults = Vec::new();
    let mut site = None;
    let mut inventory = Vec::new();
    let mut strays = Vec::new();
    let mut catalog = Catalog::default();
    let mut unread: BTreeSet<Arc<str>> = BTreeSet::new();
    for file in &files {
        if file.is_unread() {
            unread.insert(file.path.clone());
        }
        match &file.content {
            Content::Site(file) => {
                faults.extend_from_slice(&file.diagnostics);
                site = Some(&**file);
            }
            Content::Inventory(file) => {
                faults.extend_from_slice(&file.diagnostics);
                inventory.push(&**file);
            }
            Content::Service(id, file) => {
                faults.extend_from_slice(&file.diagnostics);
                strays.extend_from_slice(&file.strays);
                catalog.services.insert(id.clone(), file.service.clone());
            }
            Content::Misnamed => faults.push(
                Diagnostic::new(
                    Location::file(file.path.clone()),
                    "the name of this folder is not a valid service name",
                )
                .hint(format!("a service's name is {NAME_RULE}")),
            ),
        }
    }
    let paths: BTreeSet<&str> = paths.into_iter().collect();
    if site.is_none() {
        faults.push(no_site(&paths));
    }
    for (folder, example) in folders_without_file(&paths) {
        let fault = no_service(folder, example, &paths);
        // The service may be declared in a file that is named otherwise.
        unread.insert(fault.at.file.clone());
        faults.push(fault);
    }
    let (inventory, between) = inventory_merge::merge(site, &inventory);
    faults.extend(between);
    let site = site.and_then(|file| file.site.clone());
    faults.extend(check::plugin_kinds(&catalog, &strays, plugins));
    faults.extend(check::var_types(site.as_ref(), &inventory, &catalog));
    faults.sort();
    faults.dedup();
    (Model { site, inventory, catalog, unread }, faults)
}

fn no_site(paths: &BTreeSet<&str>) -> Diagnostic {
    let fault = Diagnostic::new(Location::file(SITE), "there is no `site.toml`: this is not a groundplan site");
    let elsewhere = paths.iter().find(|path| path.ends_with("/site.toml"));
    fault.hint(match elsewhere {
        Some(path) => format!("there is one at `{path}`: it must lie at the top of the repository"),
        None => "`groundplan init` makes one; it needs no more than `name = \"…\"`".to_owned(),
    })
}

/// Folders of `services/` that have files, but no `service.toml`; each with one of its files.
fn folders_without_file<'a>(paths: &BTreeSet<&'a str>) -> BTreeMap<&'a str, &'a str> {
    let mut with = BTreeSet::new();
    let mut without: BTreeMap<&str, &str> = BTreeMap::new();
    // `0` follows `/` in ASCII: all paths below the folder, and no others.
    for path in paths.range("services/".."services0") {
        let Some((folder, file)) = path.strip_prefix("services/").and_then(|path| path.split_once('/')) else {
            continue;
        };
        if file == "service.toml" {
            with.insert(folder);
        }
        without.entry(folder).or_insert(file);
    }
    without.retain(|folder, _| !with.contains(folder));
    without
}

fn no_service(folder: &str, example: &str, paths: &BTreeSet<&str>) -> Diagnostic {
    let at = Location::file(format!("services/{folder}/service.toml"));
    let prefix = format!("services/{folder}/");
    let files: Vec<&str> =
        paths.range(prefix.as_str()..).map_while(|path| path.strip_prefix(&prefix)).take(100).collect();
    let near = hint::nearest("service.toml", files.iter().copied().filter(|file| file.ends_with("toml")));
    Diagnostic::new(at, format!("the folder `services/{folder}` has no `service.toml`")).hint(match near {
        Some(near) => format!("did you mean `{near}`? rename it"),
        None => format!("add one, or move `{example}` and what lies beside it out of `services/`"),
    })
}
