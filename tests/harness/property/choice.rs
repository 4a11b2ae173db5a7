//! What is chosen of a thing's parameters, and the names that follow from a number.

/// What a failed task, or one that is not put into the site yet, is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// It is applied, and its readiness probe fails.
    Ready,
    /// Its new content is refused before it is put in place.
    Validation,
}

/// What is chosen of a thing's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Which kind, where there are several, or which set of parameters.
    pub(crate) form: u8,
    /// What is in it.
    pub(crate) content: u8,
    /// Owner and mode, where it has any.
    pub(crate) access: u8,
    /// Why it fails, if it does.
    pub(crate) fault: Option<Fault>,
}

/// The content of a file.
pub(crate) fn content(of: u8) -> String {
    format!("content {of}\\n")
}

/// A text file in which several tasks have lines.
pub(crate) fn lines_file(n: u8) -> String {
    format!("/etc/prop/lines{n}")
}

/// An INI file in which several tasks have options.
pub(crate) fn options_file(n: u8) -> String {
    format!("/etc/prop/options{n}.ini")
}

/// The name of a unit.
pub(crate) fn unit_name(n: u8) -> String {
    format!("prop{n}.service")
}

/// The name of a kernel module: of none that can be loaded; the last is built into the kernel, as far as the host knows.
pub(crate) fn module_name(n: u8) -> &'static str {
    ["gp_one", "gp-two", "gp_three"][usize::from(n)]
}
