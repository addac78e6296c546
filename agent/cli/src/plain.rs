//! Commands that ask the agent for one thing and print one sentence: made of the table of the control socket's commands, each row that
//! says what a person is told.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Error, FromArgMatches, Subcommand};
use serde_json::{Map, Value};

use super::{Common, Outcome, domains};
use control::commands::{COMMANDS, Request};
use control::table;

/// One of them, as it was asked for.
#[derive(Debug, Clone)]
pub(super) struct Plain {
    request: Request,
    /// What a person is told when it is done.
    done: String,
}

/// Returns the rows of such commands, and what each prints.
fn rows() -> impl Iterator<Item = (&'static table::Command, &'static str)> {
    COMMANDS.iter().filter_map(|row| row.says.map(|says| (*row, says)))
}

fn subcommand(row: &'static table::Command) -> clap::Command {
    // The line has its name, and then a word for each key.
    let places = row.fields.iter().zip(row.line.split(' ').skip(1));
    let args = places.map(|(field, place)| {
        Arg::new(field.name).value_name(place).help(field.about).required(true)
    });
    clap::Command::new(row.name).about(row.about).args(args)
}

impl Subcommand for Plain {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        rows().fold(command, |command, (row, _)| command.subcommand(subcommand(row)))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        rows().any(|(row, _)| row.name == name)
    }
}

impl FromArgMatches for Plain {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let asked = matches.subcommand().and_then(|(name, given)| {
            rows().find(|(row, _)| row.name == name).map(|(row, says)| (row, says, given))
        });
        let Some((row, says, given)) = asked else {
            return Err(Error::new(ErrorKind::InvalidSubcommand));
        };
        let mut done = says.to_owned();
        let mut request = Map::from_iter([("command".to_owned(), row.name.into())]);
        for field in row.fields {
            if let Some(value) = given.get_one::<String>(field.name) {
                done = done.replace(&format!("{{{}}}", field.name), value);
                request.insert(field.name.to_owned(), value.as_str().into());
            }
        }
        let request = serde_json::from_value(Value::Object(request))
            .map_err(|error| Error::raw(ErrorKind::InvalidValue, error))?;
        Ok(Self { request, done })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub(super) fn run(common: &Common, Plain { request, done }: &Plain) -> Outcome {
    domains::request(common, request, done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    use super::super::{Cli, Command};

    fn words(line: &str) -> Vec<String> {
        let line = line.replace(['[', ']'], "").replace("TIME", "10m");
        std::iter::once("bulkhead").chain(line.split_whitespace()).map(str::to_owned).collect()
    }

    #[test]
    fn every_row_that_says_what_a_person_is_told_is_a_command_which_asks_for_just_that() {
        for (row, says) in rows() {
            let Command::Plain(Plain { request, done }) =
                Cli::try_parse_from(words(row.line)).unwrap().command
            else {
                panic!("`{}` is another command", row.name);
            };
            assert!(std::ptr::eq(request.command(), row), "{request:?}");
            assert_eq!(row.line.split(' ').count(), 1 + row.fields.len(), "`{}`", row.line);
            let fields = row.fields.iter().zip(row.line.split(' ').skip(1));
            let expected = fields.fold(says.to_owned(), |says, (field, place)| {
                says.replace(&format!("{{{}}}", field.name), place)
            });
            assert_eq!(done, expected);
            assert!(!done.contains('{'), "{done}");
            // The words that it takes have to be there, and no others.
            let mut long = words(row.line);
            long.push("more".to_owned());
            assert!(Cli::try_parse_from(&long).is_err(), "{long:?}");
            long.truncate(1 + row.fields.len());
            assert!(Cli::try_parse_from(&long).is_err(), "{long:?}");
        }
    }

    #[test]
    fn every_command_line_of_the_table_is_understood_and_its_help_says_what_the_table_does() {
        for row in COMMANDS.iter().filter(|row| !row.line.is_empty()) {
            Cli::try_parse_from(words(row.line)).unwrap_or_else(|error| panic!("{error}"));
            // A row may be an option of another one's command.
            let mut at = &Cli::command();
            let path = row.line.split(' ').take_while(|word| {
                word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
            });
            for word in path {
                at = at.find_subcommand(word).unwrap();
            }
            let rows_here = COMMANDS
                .iter()
                .filter(|other| other.line.split(" --").next() == row.line.split(" --").next());
            let about = at.get_about().unwrap().to_string();
            assert!(
                rows_here.map(|row| row.about).any(|row| row == about),
                "`{}`: `{about}`",
                row.line
            );
        }
    }
}
