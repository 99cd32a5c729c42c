//! The faults of options, all of which are reported together.

use crate::base::error::Error;

/// Collects faults, of which the first [`OptionFaults::MAX`] are kept.
#[derive(Debug, Default)]
pub(crate) struct OptionFaults {
    first: Vec<Error>,
    more: usize,
}

impl OptionFaults {
    /// More than there can be but for long lists of wrong addresses.
    pub(crate) const MAX: usize = 100;

    /// Adds an option with an invalid value.
    pub(crate) fn add(&mut self, option: &'static str, fault: impl Into<String>) {
        self.push(Error::Option { option, fault: fault.into() });
    }

    /// Adds each option that is given and has no effect: its name, whether it is given, whether it has one, and
    /// what it needs for that.
    pub(crate) fn add_useless<const N: usize>(&mut self, options: [(&'static str, bool, bool, &str); N]) {
        for (option, is_given, has_effect, needed) in options {
            if is_given && !has_effect {
                self.add(option, format!("does nothing without {needed}"));
            }
        }
    }

    /// Adds an error, or each of several.
    pub(crate) fn push(&mut self, error: Error) {
        match error {
            Error::Configuration { faults, more } => {
                faults.into_iter().for_each(|fault| self.push(fault));
                self.more += more;
            }
            error if self.first.len() < Self::MAX => self.first.push(error),
            _ => self.more += 1,
        }
    }

    /// The value, or `None` with its fault added.
    pub(crate) fn value<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// The values of a list, with the faults of the others added.
    pub(crate) fn values<T>(&mut self, results: impl IntoIterator<Item = Result<T, Error>>) -> Vec<T> {
        results.into_iter().filter_map(|result| self.value(result)).collect()
    }

    /// The value, or a stand-in that provokes no further fault, with the fault added.
    pub(crate) fn value_or<T>(&mut self, result: Result<T, Error>, stand_in: impl FnOnce() -> T) -> T {
        self.value(result).unwrap_or_else(stand_in)
    }

    /// The options of a section, with what `check` finds about them added; the default if they had faults before.
    pub(crate) fn checked<T: Default>(
        &mut self,
        options: Result<T, Error>,
        check: impl FnOnce(&T) -> Result<(), Error>,
    ) -> T {
        let Some(options) = self.value(options) else { return T::default() };
        self.value(check(&options));
        options
    }

    /// Ends the collection with options that are yet to be checked: if they have faults already, those that `check`
    /// finds are told with them.
    ///
    /// # Errors
    ///
    /// As [`OptionFaults::into_result`].
    pub(crate) fn finish<T>(
        mut self,
        options: T,
        check: impl FnOnce(&T) -> Result<(), Error>,
    ) -> Result<T, Error> {
        if !self.first.is_empty() {
            self.value(check(&options));
        }
        self.into_result()?;
        Ok(options)
    }

    /// Ends the collection.
    ///
    /// # Errors
    ///
    /// The fault, or [`Error::Configuration`] for several.
    pub(crate) fn into_result(self) -> Result<(), Error> {
        let OptionFaults { mut first, more } = self;
        match (first.len(), more) {
            (0, _) => Ok(()),
            (1, 0) => Err(first.remove(0)),
            _ => Err(Error::Configuration { faults: first, more }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_is_itself_and_several_have_a_line_each() {
        let mut faults = OptionFaults::default();
        faults.add("--a", "is wrong");
        faults.add_useless([("--b", true, true, "--c"), ("--d", false, false, "--e")]);
        assert_eq!(faults.into_result().unwrap_err().to_string(), "--a: is wrong");
        let mut faults = OptionFaults::default();
        faults.add("--a", "is wrong");
        faults.add_useless([("--b", true, false, "--c")]);
        let several = faults.into_result().unwrap_err();
        assert_eq!(several.to_string(), "--a: is wrong\n--b: does nothing without --c");
        assert_eq!(several.exit_status(), 2);
        let mut all = OptionFaults::default();
        all.push(several);
        let checked = all.checked(Ok(7), |_| Err(Error::Option { option: "--f", fault: "x".to_owned() }));
        assert_eq!((checked, all.into_result().unwrap_err().to_string().lines().count()), (7, 3));
        OptionFaults::default().into_result().unwrap();
    }

    #[test]
    fn of_very_many_faults_the_first_are_kept_and_the_others_counted() {
        let mut faults = OptionFaults::default();
        (0..OptionFaults::MAX + 5).for_each(|_| faults.add("--a", "is wrong"));
        let said = faults.into_result().unwrap_err().to_string();
        assert_eq!(
            (said.lines().count(), said.lines().last()),
            (OptionFaults::MAX + 1, Some("and 5 more faults"))
        );
    }
}
