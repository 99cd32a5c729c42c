//! The environment with which a process was started.

use crate::observe::kernel_file::read_some;

/// The most bytes that are read of it.
const ROOM: usize = 128 * 1024;

/// A variable of the environment with which a process was started; `None` when it is not set, is no UTF-8, or may not
/// be read: only root may read that of other users' processes.
pub(crate) fn environment_variable(pid: u32, name: &str) -> Option<String> {
    let mut room = vec![0; ROOM];
    let environment = read_some(format!("/proc/{pid}/environ"), &mut room)?;
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(std::str::from_utf8(value).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::observe::testing::Child;

    #[test]
    fn a_variable_is_that_with_which_the_process_was_started() {
        let mut command = Command::new("cat");
        let mut child = Child::start(command.env("VARTA_ONE", "a=b").env("VARTA_ONE_MORE", ""));
        child.say("it runs");
        child.hear("it runs");
        let variable = |name| environment_variable(child.pid(), name);
        assert_eq!(variable("VARTA_ONE").as_deref(), Some("a=b"));
        assert_eq!(variable("VARTA_ONE_MORE").as_deref(), Some(""));
        assert_eq!((variable("VARTA_ON"), environment_variable(0, "PATH")), (None, None));
    }
}
