//! Whatever a guest may do, in any order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Access {
    ConfigRead(u16, usize),
    ConfigWrite(u16, Vec<u8>),
    BarRead(usize, u64, usize),
    BarWrite(usize, u64, Vec<u8>),
    Reset,
}

/// Makes anything a guest may do, more often where it matters.
fn access() -> impl Strategy<Value = Access> {
    let register = prop_oneof![
        0u16..4096,
        0u16..0x40,
        MSIX..MSIX + 12,
        MSI..MSI + 14,
        EXPRESS..EXPRESS + 0x14,
        Just(MSIX + 2),
        Just(4),
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 4),
        Just(vec![0xff; 4]),
        Just(vec![0; 4]),
        Just(vec![0x06, 0x80, 0, 0]),
    ];
    let length = prop_oneof![Just(1usize), Just(2), Just(4)];
    let wide = prop_oneof![Just(1usize), Just(2), Just(4), Just(8)];
    let inside = prop_oneof![0u64..0x4000, 0u64..0x60, 0x1ff8u64..0x2010];
    prop_oneof![
        2 => (register.clone(), length.clone()).prop_map(|(at, n)| Access::ConfigRead(at, n)),
        4 => (register, value, length)
            .prop_map(|(at, value, n)| Access::ConfigWrite(at, value[..n].to_vec())),
        1 => (0usize..6, inside.clone(), wide.clone()).prop_map(|(b, at, n)| Access::BarRead(b, at, n)),
        4 => (3usize..4, inside.clone(), wide.clone(), any::<u64>())
            .prop_map(|(b, at, n, v)| Access::BarWrite(b, at, v.to_le_bytes()[..n].to_vec())),
        1 => (0usize..6, inside, wide, any::<u64>())
            .prop_map(|(b, at, n, v)| Access::BarWrite(b, at, v.to_le_bytes()[..n].to_vec())),
        1 => Just(Access::Reset),
    ]
}

/// Returns what may be written to the hardware's configuration space: bus mastering and the read
/// request size, never a BAR.
fn allowed(offset: u16, data: &[u8]) -> bool {
    let Ok(word) = data.try_into().map(u16::from_le_bytes) else { return false };
    match offset {
        4 => word & !0x0004 == 0x0502,
        at if at == EXPRESS + 8 => word & 0x8fff == 0x0816 && word >> 12 <= 5,
        _ => false,
    }
}

proptest! {
    #[test]
    fn whatever_a_guest_does_the_hardware_gets_only_what_it_may(
        growable: bool,
        accesses in prop::collection::vec(access(), 0..120),
    ) {
        let nic = FakeNic::new();
        nic.with(|state| state.growable = growable);
        let (mut function, recorder) = running(&nic);
        for access in accesses {
            match access {
                Access::ConfigRead(at, n) => function.config_read(at, &mut [0; 4][..n]),
                Access::ConfigWrite(at, data) => write(&mut function, at, &data),
                Access::BarRead(index, at, n) => function.bar_read(bar(index), at, &mut [0; 8][..n]),
                Access::BarWrite(index, at, data) => function.bar_write(bar(index), at, &data),
                Access::Reset => {
                    let before = function.windows();
                    function.reset();
                    report_moves(&mut function, before);
                }
            }
            for event in nic.events() {
                match event {
                    Event::ConfigWrite(at, data) => {
                        prop_assert!(allowed(at, &data), "{at:#x} {data:x?}");
                    }
                    Event::BarWrite(3, at, data) => {
                        let end = at + data.len() as u64;
                        prop_assert!(at >= u64::from(VECTORS) * 16, "table at {at:#x}");
                        prop_assert!(end <= 0x2000 || at >= 0x2008, "pending bits at {at:#x}");
                    }
                    _ => {}
                }
            }
            // Memory of the guest is where the windows are, and nowhere else.
            let windows = function.windows();
            for (at, size) in nic.with(|state| state.slots.values().copied().collect::<Vec<_>>()) {
                let shown = windows.iter().flatten().any(|window| {
                    window.address <= at && at + size <= window.address + window.size
                });
                prop_assert!(shown, "{size:#x} bytes at {at:#x}");
            }
            // A vector the guest can hear is one the hardware signals. (Both kinds on at once is
            // the guest's mistake, and the hardware has only one.)
            let (msi, msix) = (read(&mut function, MSI) >> 16 & 1, read(&mut function, MSIX) >> 31);
            if msi == 0 && msix == 1 {
                for (vector, number) in (0..VECTORS).zip(FIRST_MSIX..) {
                    let live = recorder.live(number).is_some();
                    prop_assert!(!live || nic.raise(Irq::Msix, vector), "vector {vector} is deaf");
                }
            }
            prop_assert!(function.usable());
        }
        drop(function);
        let on = |irq| nic.with(|state| state.on.contains_key(&(irq as u8)));
        prop_assert!(!on(Irq::Msi) && !on(Irq::Msix));
        prop_assert_eq!(nic.with(|state| state.config[4]) & 4, 0);
    }
}
