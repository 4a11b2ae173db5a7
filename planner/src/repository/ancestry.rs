//! How commits follow each other.

use groundplan_protocol::ids::CommitId;

use super::{Repository, error::RepositoryError, local::git};

impl Repository {
    /// The newest commit that both have in their history; none if they have no common one, or it is not in a shallow clone.
    pub fn merge_base(&self, one: &CommitId, other: &CommitId) -> Option<CommitId> {
        // It also fails, without a message, where there is none (git-merge-base(1)).
        CommitId::new(self.ask(&["merge-base", one.as_str(), other.as_str()]).ok()?).ok()
    }

    /// How many commits are in the history of `of` and not in that of `and_not`.
    ///
    /// # Errors
    /// A commit is not in the repository.
    pub fn count_missing(&self, of: &CommitId, and_not: &CommitId) -> Result<usize, RepositoryError> {
        let range = format!("{and_not}..{of}");
        Ok(self.ask(&["rev-list", "--count", &range])?.parse().unwrap_or_default())
    }

    /// What the step from one commit to another takes back, if it is no fast-forward: how many commits, as far as they can be counted.
    ///
    /// # Errors
    /// The target is not in the repository.
    pub fn rewinds(&self, from: &CommitId, to: &CommitId) -> Result<Option<Option<usize>>, RepositoryError> {
        if from == to || self.backend().has_before(to, from)? == Some(true) {
            return Ok(None);
        }
        Ok(match self.count_missing(from, to) {
            Ok(0) => None,
            Ok(count) => Some(Some(count)),
            // What was before is not in the repository any more.
            Err(_) => Some(None),
        })
    }

    /// At most `most` commits before this one, as a branch had them: first parents, the newest first.
    ///
    /// # Errors
    /// The commit is not in the repository.
    pub fn before(&self, commit: &CommitId, most: usize) -> Result<Vec<CommitId>, RepositoryError> {
        let most = format!("--max-count={most}");
        let out = self.ask(&["rev-list", "--first-parent", "--skip=1", &most, commit.as_str()])?;
        Ok(out.lines().filter_map(|line| CommitId::new(line).ok()).collect())
    }

    fn ask(&self, args: &[&str]) -> Result<String, RepositoryError> {
        let [git_dir, _] = self.git_dirs().map(|dir| dir.to_path_buf());
        git(&git_dir, &[], args)
    }
}
