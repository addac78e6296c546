//! What scripts send and auditors read of requests stays what it is.

use super::protocol::Request;
use super::roles::{Caller, Role};

const REQUESTS: &str = include_str!("tests/requests.tsv");

#[test]
fn every_request_has_the_bytes_the_word_in_the_audit_log_and_the_roles_that_stand_in_the_file() {
    let rows = REQUESTS.lines().filter(|line| !line.starts_with('#'));
    for row in rows {
        let [line, word, takes_time, domain, roles] =
            row.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let request: Request = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert_eq!(request.word(), word, "{line}");
        assert_eq!(request.takes_time().to_string(), takes_time, "{line}");
        assert_eq!(request.domain().unwrap_or("-"), domain, "{line}");
        let roles: Vec<&str> = roles.split(' ').collect();
        for (role, name) in [(Role::User, "user"), (Role::It, "it"), (Role::Officer, "officer")] {
            let may = Caller::of_role(role).may(&request).is_ok();
            assert_eq!(may, roles.contains(&name), "{name}: {line}");
        }
        assert!(Caller::of_role(Role::Root).may(&request).is_ok(), "{line}");
        assert!(Caller::without_role(1000).may(&request).is_err(), "{line}");
    }
}
