use super::*;
use crate::testing::Recorder;
use proptest::prelude::*;

fn message(index: u16) -> MsiMessage {
    MsiMessage { address: 0xfee0_0000 + 4 * u64::from(index), data: 0x4000 + u32::from(index) }
}

fn program(msix: &mut Msix, index: u16, message: MsiMessage) {
    let at = ENTRY_SIZE * u64::from(index);
    msix.table_write(at, &message.address.to_le_bytes());
    msix.table_write(at + 8, &message.data.to_le_bytes());
}

fn mask(msix: &mut Msix, index: u16, masked: bool) {
    msix.table_write(ENTRY_SIZE * u64::from(index) + 12, &u32::from(masked).to_le_bytes());
}

#[test]
fn only_unmasked_vectors_of_an_enabled_function_are_live() {
    let recorder = Recorder::default();
    let mut msix = Msix::new(&recorder, 4).unwrap();
    program(&mut msix, 1, message(1));
    mask(&mut msix, 1, false);
    assert_eq!(recorder.live(1), None, "not enabled");
    msix.set_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
    assert_eq!(recorder.live(1), None, "function masked");
    msix.set_control(CONTROL_ENABLE);
    assert_eq!(recorder.live(1), Some(message(1)));
    assert_eq!(recorder.live(0), None, "masked from reset");
    let calls = recorder.calls();
    msix.set_control(CONTROL_ENABLE);
    program(&mut msix, 1, message(1));
    assert_eq!(recorder.calls(), calls, "the kernel is not asked when nothing changes");
    program(&mut msix, 1, message(3));
    assert_eq!(recorder.live(1), Some(message(3)));
    msix.reset();
    assert_eq!(recorder.live(1), None);
}

#[test]
fn what_is_raised_while_masked_is_pending_and_delivered_later() {
    let recorder = Recorder::default();
    let mut msix = Msix::new(&recorder, 70).unwrap();
    msix.set_control(CONTROL_ENABLE);
    program(&mut msix, 65, message(65));
    msix.trigger(65);
    let mut pba = [0; 16];
    msix.pba_read(0, &mut pba);
    assert_eq!((pba[8], pba.iter().map(|b| b.count_ones()).sum::<u32>()), (0b10, 1));
    mask(&mut msix, 65, false);
    msix.pba_read(0, &mut pba);
    assert_eq!(pba, [0; 16]);
    assert!(recorder.waiting(65), "it is in the eventfd, which KVM looks at when it attaches");
}

#[test]
fn the_capability_tells_size_and_places() {
    let msix = Msix::new(&Recorder::default(), 3).unwrap();
    let body = msix.capability((1, 0x2000), (2, 0x3000));
    assert_eq!(body, [2, 0, 1, 0x20, 0, 0, 2, 0x30, 0, 0]);
    assert_eq!((msix.table_size(), msix.pba_size()), (48, 8));
}

#[derive(Clone, Debug)]
enum Step {
    Control(u16),
    Table(u64, Vec<u8>),
    Read(u64, usize),
    Trigger(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop::collection::vec(any::<u8>(), 1..9);
    let offset = prop_oneof![4 => 0u64..160, 1 => any::<u64>()];
    let step = prop_oneof![
        any::<u16>().prop_map(Step::Control),
        (offset.clone(), bytes).prop_map(|(o, b)| Step::Table(o, b)),
        (offset, 1usize..9).prop_map(|(o, n)| Step::Read(o, n)),
        (0u16..12).prop_map(Step::Trigger),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn no_event_is_lost_and_none_delivered_while_masked(steps in steps()) {
        let recorder = Recorder::default();
        let mut msix = Msix::new(&recorder, 8).unwrap();
        let mut raised = [0u64; 8];
        for step in steps {
            match step {
                Step::Control(value) => { msix.set_control(value); }
                Step::Table(offset, bytes) => { msix.table_write(offset, &bytes); }
                Step::Read(offset, length) => {
                    let mut data = vec![0; length];
                    msix.table_read(offset, &mut data);
                    msix.pba_read(offset, &mut data);
                }
                Step::Trigger(index) => {
                    msix.trigger(index);
                    if let Some(count) = raised.get_mut(usize::from(index)) {
                        *count += 1;
                    }
                }
            }
            for index in 0..8u16 {
                let mut entry = [0; 16];
                msix.table_read(ENTRY_SIZE * u64::from(index), &mut entry);
                let open = msix.enabled && !msix.function_masked && entry[12] & 1 == 0;
                prop_assert_eq!(recorder.live(index).is_some(), open);
                if let Some(live) = recorder.live(index) {
                    prop_assert_eq!(&live.address.to_le_bytes()[..], &entry[..8]);
                    prop_assert_eq!(&live.data.to_le_bytes()[..], &entry[8..12]);
                }
            }
        }
        for (index, count) in (0u16..).zip(raised) {
            prop_assert_eq!(recorder.waiting(index), count > 0);
        }
    }
}
