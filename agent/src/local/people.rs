//! Who asks: the peer of a local socket by the kernel's word, its user's name, and whether it may.
//!
//! Names of users and groups are read from the machine's own files, within bounds. A directory service is not asked: it may be gone at
//! the very hour at which somebody stands before the cabinet. A user that only it knows is named by number.

use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;

use crate::durable;

use super::is_name;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// The most that is read of either.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most groups of a peer that are looked at; one with more is taken for a member of none of them.
const GROUPS_MAX: usize = 1024;

const ROOT: u32 = 0;

/// The other end of a connection, as the kernel vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub user: u32,
    /// All of its groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// The peer of a connected Unix socket.
    ///
    /// # Errors
    /// The kernel does not say who it is.
    pub fn of(stream: &tokio::net::UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = groups_of(stream)?;
        groups.push(credentials.gid());
        Ok(Self {
            user: credentials.uid(),
            groups,
        })
    }

    /// Whether it may ask for anything, by an agent that runs as `own`.
    pub fn may_ask(&self, own: u32, group: Option<u32>) -> bool {
        let is_member = |group: u32| self.groups.contains(&group);
        self.user == ROOT || self.user == own || group.is_some_and(is_member)
    }
}

/// Somebody who steers has no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unnamed {
    /// The account belongs to nobody in particular.
    #[error(
        "{0} is an account, not a person, and the audit trail names persons: say who you are with `--by NAME`"
    )]
    Shared(String),
    /// What was said is no name.
    #[error(
        "a name has at most 64 bytes of letters, digits, spaces and any of `. - _ ' @`: say it with `--by NAME`"
    )]
    NotAName,
}

/// The words for whoever asks: `name` is the account's, `said` is what they say of themselves.
///
/// # Errors
/// They have to say a name and do not, or it is none.
pub fn in_words(user: u32, own: u32, name: Option<&str>, said: Option<&str>) -> Result<String, Unnamed> {
    let account = name.map_or_else(|| format!("user {user}"), str::to_owned);
    match said {
        Some(said) if !is_name(said) => Err(Unnamed::NotAName),
        Some(said) if said == account => Ok(format!("{account} at the gateway")),
        Some(said) => Ok(format!("{account} (said to be {said}) at the gateway")),
        None if user == ROOT || user == own => Err(Unnamed::Shared(account)),
        None => Ok(format!("{account} at the gateway")),
    }
}

/// The name of a user on this machine.
pub fn name_of(user: u32) -> Option<String> {
    name_in(&read(Path::new(PASSWD))?, user).filter(|name| is_name(name))
}

/// The number of a group on this machine.
pub fn group_of(name: &str) -> Option<u32> {
    number_in(&read(Path::new(GROUP))?, name)
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(durable::read(path, BYTES_MAX).ok()??).ok()
}

/// `name:x:number:…`
fn name_in(text: &str, number: u32) -> Option<String> {
    let mut lines = text.lines().map(|line| line.split(':'));
    let found = lines.find_map(|mut fields| {
        let name = fields.next()?;
        let found: u32 = fields.nth(1)?.parse().ok()?;
        (found == number).then(|| name.to_owned())
    });
    found.filter(|name| !name.is_empty())
}

fn number_in(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?)
}

/// All groups of a connected socket's peer.
#[allow(unsafe_code)] // One call for which no safe wrapper is at hand.
fn groups_of(socket: &impl AsFd) -> std::io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS_MAX];
    let Ok(mut length) = libc::socklen_t::try_from(size_of_val(groups.as_slice())) else {
        return Ok(Vec::new());
    };
    // SAFETY: the kernel writes at most `length` bytes to the vector, which is ours and has as many; `gid_t` is 32 bits on Linux.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        // More groups than there is room for.
        let is_too_many = error.raw_os_error() == Some(libc::ERANGE);
        return if is_too_many { Ok(Vec::new()) } else { Err(error) };
    }
    groups.truncate(usize::try_from(length).unwrap_or_default() / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn root_the_agents_user_and_members_of_the_group_may_ask_and_nobody_else() {
        let peer = |user, groups: &[u32]| Peer {
            user,
            groups: groups.to_vec(),
        };
        assert!(peer(0, &[]).may_ask(990, None));
        assert!(peer(990, &[]).may_ask(990, None));
        assert!(peer(1000, &[1000, 44]).may_ask(990, Some(44)));
        assert!(!peer(1000, &[1000, 44]).may_ask(990, None));
        assert!(!peer(1000, &[1000, 0]).may_ask(990, Some(44)));
    }

    #[test]
    fn a_shared_account_has_to_say_who_it_is_and_is_never_taken_for_that_person() {
        assert_eq!(
            in_words(0, 990, Some("root"), None),
            Err(Unnamed::Shared("root".to_owned()))
        );
        assert!(in_words(990, 990, Some("penstock-agent"), None).is_err());
        let words = |user, name, said| in_words(user, 990, name, said).unwrap();
        assert_eq!(
            words(0, Some("root"), Some("anna")),
            "root (said to be anna) at the gateway"
        );
        assert_eq!(words(1000, Some("anna"), None), "anna at the gateway");
        assert_eq!(words(1000, Some("anna"), Some("anna")), "anna at the gateway");
        assert_eq!(words(1001, None, None), "user 1001 at the gateway");
        assert_eq!(
            in_words(0, 990, Some("root"), Some("anna) and (bert")),
            Err(Unnamed::NotAName)
        );
    }

    #[test]
    fn users_and_groups_are_found_in_the_machines_files_and_torn_lines_are_passed_over() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:7::\nanna:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("anna"));
        assert_eq!((name_in(passwd, 7), name_in(passwd, 8)), (None, None));
        let group = "root:x:0:\noperators:x:44:anna,bert\nodd:x:x:\n";
        assert_eq!(number_in(group, "operators"), Some(44));
        assert_eq!((number_in(group, "odd"), number_in(group, "anna")), (None, None));
        assert_eq!(name_of(0).as_deref(), Some("root"));
    }

    #[tokio::test]
    async fn the_kernel_says_who_the_other_end_is() {
        let (one, _other) = tokio::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.user, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
    }
}
