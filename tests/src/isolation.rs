//! Who reaches whom: tried from inside both guests, by every way that a frame can take.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::guest::Probe;
use crate::patience::patience;
use crate::ward::{CLINICAL_MAC, CLINICAL_NIC, INTERNET_MAC, INTERNET_NIC, Ward};
use crate::{Failure, Network, Outcome, ensure};

/// How long frames that must not arrive are waited for.
const ARRIVAL: Duration = Duration::from_secs(2);
/// How long a guest may be to find out that its IPv6 address is its own.
const ADDRESS_USABLE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Try {
    /// The domain it came from.
    pub from: &'static str,
    /// Where to and by what.
    pub to: String,
    /// Whether it has to arrive; otherwise it must not.
    pub wanted: bool,
    /// Whether the packet arrived.
    pub arrived: bool,
}

impl Try {
    /// Returns whether it is as it has to be.
    pub fn holds(&self) -> bool {
        self.wanted == self.arrived
    }
}

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = if self.arrived { "reached" } else { "not reached" };
        let holds = match (self.holds(), self.wanted) {
            (true, true) => "as it has to be",
            (true, false) => "separated",
            (false, true) => "WRONG: it has to be reached",
            (false, false) => "WRONG: IT MUST NOT BE REACHED",
        };
        write!(f, "{:<9} -> {:<58} {seen:<12} {holds}", self.from, self.to)
    }
}

/// One domain with its guest and its network.
pub struct Side<'a> {
    /// The domain's name.
    pub name: &'static str,
    /// Its NIC's PCI address.
    pub nic: &'static str,
    mac: &'static str,
    /// The guest's IPv4 address.
    address: &'static str,
    /// The name of its only interface.
    interface: String,
    /// What the guest itself says of its NIC: driver, MAC address, kind of interrupts.
    described: Value,
    link_local: String,
    probe: Probe<'a>,
    network: &'a Network,
}

/// Returns both domains, their guests given an address each.
pub fn sides<'a>(ward: &'a Ward, agent: &Agent<'a>) -> Outcome<[Side<'a>; 2]> {
    let side = |name, nic, mac, address: &'static str, network: &'a Network| {
        let probe = agent.probe(name);
        let interface = probe.configure(&format!("{address}/24"))?;
        let described = probe.interface()?;
        ensure!(described["mac"] == mac && described["msi_kind"] == "msix", "{name}: {described}");
        let link_local = described["ipv6"][0].as_str().unwrap_or_default().to_owned();
        ensure!(!link_local.is_empty(), "{name} has no link-local address: {described}");
        Ok::<_, Failure>(Side {
            name,
            nic,
            mac,
            address,
            interface,
            described,
            link_local,
            probe,
            network,
        })
    };
    Ok([
        side("clinical", CLINICAL_NIC, CLINICAL_MAC, "10.1.0.5", &ward.clinical)?,
        side("internet", INTERNET_NIC, INTERNET_MAC, "10.2.0.6", &ward.internet)?,
    ])
}

/// Tries everything, telling each result as it is known.
pub fn try_all(sides: &[Side<'_>; 2], tell: &dyn Fn(&Try)) -> Outcome<Vec<Try>> {
    let [clinical, internet] = sides;
    let mut tries = Vec::new();
    let mut record = |from, to, wanted, arrived| {
        let tried = Try { from, to, wanted, arrived };
        tell(&tried);
        tries.push(tried);
    };
    for (own, other) in [(clinical, internet), (internet, clinical)] {
        let (probe, name) = (&own.probe, own.name);
        let server = own.network.server_text();
        record(name, format!("its own server {server}, IPv4"), true, probe.reaches(&server)?);
        let local = own.network.server_link_local();
        // A guest may not use its own address before it knows that nobody else has it (RFC 4862, 5.4).
        let until = Instant::now() + patience(ADDRESS_USABLE);
        let mut reached = probe.reaches_by(&local, Some(&own.interface))?;
        while !reached && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(200));
            reached = probe.reaches_by(&local, Some(&own.interface))?;
        }
        record(name, "its own server, IPv6 link-local".into(), true, reached);
        let page =
            probe.ask(json!({"op": "http", "address": server})).map_err(|Failure(error)| {
                Failure(format!("{error}\nthe last frames:\n{}", own.network.last_frames(12)))
            })?;
        let says = format!("this is the {} network", own.network.name);
        let right = page["body"].as_str().is_some_and(|body| body.contains(&says));
        record(name, "its own server's page, HTTP".into(), true, right);

        let others = other.network.server_text();
        for (what, address) in [("server", &*others), ("guest", other.address)] {
            let reached = probe.reaches(address)?;
            record(name, format!("the other {what} {address}, IPv4"), false, reached);
            let question = json!({"op": "arp", "interface": own.interface, "address": address});
            let answered = probe.ask(question)?["answered"] == true;
            record(name, format!("the other {what} {address}, ARP"), false, answered);
        }
        for (what, address) in
            [("server", &other.network.server_link_local()), ("guest", &other.link_local)]
        {
            let reached = probe.reaches_by(address, Some(&own.interface))?;
            record(name, format!("the other {what}, IPv6 link-local"), false, reached);
        }
    }
    // Frames that lie about where they come from, to everybody and to whom it may concern.
    let marker = |side: &Side<'_>| format!("FORGED-BY-{}", side.name);
    for (own, other) in [(clinical, internet), (internet, clinical)] {
        for to in ["ff:ff:ff:ff:ff:ff", other.mac, "02:ee:0a:01:00:01", "02:ee:0a:02:00:01"] {
            own.probe.ask(json!({"op": "send-frame", "interface": own.interface,
                "source": other.mac, "destination": to, "payload": marker(own), "count": 5}))?;
        }
    }
    std::thread::sleep(ARRIVAL);
    for (own, other) in [(clinical, internet), (internet, clinical)] {
        let frames = "broadcast and forged frames";
        let arrived = own.network.saw(marker(own).as_bytes());
        record(own.name, format!("its own network, {frames}"), true, arrived);
        let crossed = other.network.saw(marker(own).as_bytes());
        record(own.name, format!("the other network, {frames}"), false, crossed);
    }
    Ok(tries)
}

impl Side<'_> {
    /// Returns the NIC, in the guest's own words.
    pub fn nic_in_words(&self) -> String {
        let word = |key: &str| self.described[key].as_str().unwrap_or("unknown").to_owned();
        let (driver, kind) = (word("driver"), word("msi_kind"));
        format!("driver {driver}, MAC {}, interrupts by {kind}", word("mac"))
    }

    /// Returns whether its guest reaches its own server.
    pub fn works(&self) -> Outcome<bool> {
        self.probe.reaches(&self.network.server_text())
    }

    /// Checks the same for a guest that was started anew: waits for it and gives it its address again.
    pub fn works_again(&self) -> Outcome<bool> {
        self.probe.wait_ready()?;
        self.probe.configure(&format!("{}/24", self.address))?;
        self.works()
    }
}
