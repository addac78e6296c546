//! A worker that has begun and then hangs, while its VMM lives and its guest waits.

use super::*;

/// So often are these asked, in place of every ten seconds.
const EVERY: Duration = Duration::from_millis(400);
/// Takes the next message, as a worker does.
const TAKE: &str = "dd bs=64 count=1 <&1 >/dev/null 2>&1";

/// Attends to this script, which is told to close once it has been served for so long; what was told, how long it took, and how often it was authorised.
fn attend_for(script: &str, close_after: Duration) -> (Vec<DeviceThreadEvent>, Duration, usize) {
    attend_looking(script, EVERY, close_after)
}

/// The same, looked at so often.
fn attend_looking(
    script: &str,
    look_every: Duration,
    close_after: Duration,
) -> (Vec<DeviceThreadEvent>, Duration, usize) {
    let (_dir, worker, _vmm) = started(script);
    let (waker, (sender, commands)) = (waker(), mpsc::channel());
    let waker = std::sync::Arc::new(waker);
    let (told, authorised) = (RefCell::new(Vec::new()), Cell::new(0));
    let closes = std::sync::Arc::clone(&waker);
    let began = Moment::now();
    // Not joined: it is of no consequence to one that is ended before.
    std::thread::spawn(move || {
        std::thread::sleep(close_after);
        let _ = sender.send(DeviceThreadCommand::Close);
        let _ = sender.send(DeviceThreadCommand::Cut);
        closes.notify();
    });
    let outcome = Attendant {
        worker,
        commands: &commands,
        waker: &waker,
        cut: &Cut::default(),
        authorise: &|| {
            authorised.set(authorised.get() + 1);
            Some(1)
        },
        tell: &|event| told.borrow_mut().push(event),
        begin_within: Duration::from_secs(60),
        look_every,
        what: "a device".to_owned(),
    }
    .attend()
    .outcome;
    assert!(outcome.is_ok(), "{outcome:?}");
    (told.into_inner(), began.elapsed(), authorised.get())
}

// Shows: C-8.
#[test]
fn a_worker_that_hangs_while_it_serves_is_ended_and_its_device_is_detached_in_words() {
    let hangs = [
        format!("{BEGUN}; exec sleep 1000"),
        // After it has answered for a while.
        format!("{TAKE}; {BEGUN}; {TAKE}; printf '\\006'; {TAKE}; printf '\\006'; exec sleep 1000"),
        // It says something else, and has not answered by that.
        format!(
            r"{BEGUN}; while :; do printf '\003\001\000\000\000\000\000\000\000x'; sleep 1; done"
        ),
    ];
    for script in hangs {
        let (told, took, _) = attend_for(&script, Duration::from_secs(60));
        let Some(DeviceThreadEvent::Detached(Some(DetachReason::Stream(said)), None)) = told.last()
        else {
            panic!("{script}: {told:?}")
        };
        assert!(said.contains(FAILED) && said.contains("has not answered for a minute"), "{said}");
        assert!(said.contains("plug it in again"), "{said}");
        assert!(took >= EVERY * 6 && took < Duration::from_secs(30), "{script}: {took:?}");
    }
}

#[test]
fn a_worker_that_answers_keeps_serving_and_one_that_answers_unasked_is_ended() {
    let answers = format!("{TAKE}; {BEGUN}; while {TAKE}; do printf '\\006'; done");
    let (told, took, _) = attend_for(&answers, EVERY * 15);
    assert!(matches!(told[..], [DeviceThreadEvent::Begun]), "{told:?}");
    assert!(took >= EVERY * 15, "{took:?}");
    for script in [
        format!("{BEGUN}; printf '\\006'; exec sleep 1000"),
        format!("{TAKE}; {BEGUN}; {TAKE}; printf '\\006'; printf '\\006'; exec sleep 1000"),
    ] {
        let (told, ..) = attend_for(&script, Duration::from_secs(60));
        let Some(DeviceThreadEvent::Detached(Some(DetachReason::Stream(said)), None)) = told.last()
        else {
            panic!("{script}: {told:?}")
        };
        assert!(said.contains("it said that it serves its device, which it may not"), "{said}");
    }
}

#[test]
fn a_worker_that_waits_for_its_interfaces_to_be_authorised_answers_afterwards_and_is_not_ended() {
    // As often as it is authorised at once, and then once a second: it is asked meanwhile, and says nothing until it is authorised.
    let script = format!(
        r#"exec 3<&1; n=0; asked=0
take() {{ m=$(dd bs=64 count=1 <&3 2>/dev/null | od -An -tx1 | tr -d ' \n'); }}
take; {BEGUN}; printf '\001'
while take; do
    case "$m" in
        14) if [ $n -lt 11 ]; then asked=1; else printf '\006'; fi ;;
        13*)
            n=$((n + 1)); if [ $asked = 1 ]; then printf '\006'; asked=0; fi
            if [ $n -lt 11 ]; then printf '\001'; fi ;;
        '') exit ;;
    esac
done"#
    );
    let often = Duration::from_millis(100);
    let (told, _, authorised) = attend_looking(&script, often, Duration::from_secs(6));
    assert!(matches!(told[..], [DeviceThreadEvent::Begun]), "{told:?}");
    assert_eq!(authorised, 11);
}
