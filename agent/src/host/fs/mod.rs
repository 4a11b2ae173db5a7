//! Files and directories of the host: found, read and written below the agent's root, with their owners and formats.

pub(crate) mod access;
pub(crate) mod attributes;
mod entry;
pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod ini;
pub(crate) mod paths;
pub(crate) mod spot;
pub(crate) mod text;
pub(crate) mod users;
pub(crate) mod validate;
pub(crate) mod xattrs;
