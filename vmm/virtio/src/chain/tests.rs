use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::testing::{Buffer, DriverQueue, INDIRECT, NEXT, WRITE, memory, readable, writable};

const LIMITS: Limits = Limits { bytes: 1 << 20, indirect: true };

/// Walks a queue of 16 from descriptor 0.
fn walk_first(
    driver: &DriverQueue,
    memory: &GuestMemory,
    limits: Limits,
) -> Result<Chain, ChainError> {
    let table = GuestAddress(driver.table());
    walk(&Arc::new(memory.clone()), table, 16, 0, limits, Storage::default())
}

fn chain_of(memory: &GuestMemory, buffers: &[Buffer]) -> Result<Chain, ChainError> {
    let mut driver = DriverQueue::new(memory, 0, 16);
    driver.offer(buffers);
    walk_first(&driver, memory, LIMITS)
}

#[test]
fn readable_and_writable_lengths_are_told_apart() {
    let memory = memory(0x10_0000);
    let chain = chain_of(
        &memory,
        &[readable(0x2_0000, 16), readable(0x3_0000, 100), writable(0x4_0000, 1)],
    )
    .unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (116, 1));
}

#[test]
fn a_reader_crosses_buffers_and_refuses_what_is_not_there() {
    let memory = memory(0x10_0000);
    memory.write_slice(b"abc", GuestAddress(0x2_0000)).unwrap();
    memory.write_slice(b"defgh", GuestAddress(0x3_0000)).unwrap();
    let chain = chain_of(&memory, &[readable(0x2_0000, 3), readable(0x3_0000, 5)]).unwrap();

    let mut reader = chain.reader();
    assert_eq!(&reader.read_array::<2>().unwrap(), b"ab");
    assert_eq!(&reader.read_array::<4>().unwrap(), b"cdef");
    assert!(reader.read_array::<3>().is_err());
    assert_eq!(reader.left(), 2);
    assert_eq!(&reader.read_array::<2>().unwrap(), b"gh");
    assert_eq!(reader.left(), 0);
}

#[test]
fn a_writer_split_in_two_fills_both_parts() {
    let memory = memory(0x10_0000);
    let chain = chain_of(&memory, &[writable(0x2_0000, 4), writable(0x3_0000, 4)]).unwrap();
    let (mut front, mut back) = chain.writer().split_at(6).unwrap();
    back.write_all(b"YZ").unwrap();
    front.write_all(b"123456").unwrap();
    assert!(front.write_all(b"7").is_err());

    let (mut one, mut two) = ([0; 4], [0; 4]);
    memory.read_slice(&mut one, GuestAddress(0x2_0000)).unwrap();
    memory.read_slice(&mut two, GuestAddress(0x3_0000)).unwrap();
    assert_eq!((&one, &two), (b"1234", b"56YZ"));
    assert!(chain.writer().split_at(9).is_err());
}

#[test]
fn zero_length_descriptors_carry_nothing_wherever_they_point() {
    let memory = memory(0x10_0000);
    let chain = chain_of(
        &memory,
        &[readable(u64::MAX, 0), readable(0x2_0000, 8), writable(0x7fff_ffff_ffff, 0)],
    )
    .unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (8, 0));
}

#[test]
fn a_buffer_is_refused_from_one_byte_past_the_end_of_memory() {
    let memory = memory(0x10_0000);
    assert!(chain_of(&memory, &[readable(0xf_fff0, 16)]).is_ok());
    let refused = chain_of(&memory, &[readable(0xf_fff0, 17)]).unwrap_err();
    assert_eq!(refused, ChainError::BufferOutsideMemory { address: 0xf_fff0, len: 17 });
    for address in [u64::MAX, u64::MAX - 15, 1 << 63, 0x10_0000] {
        assert!(chain_of(&memory, &[writable(address, 16)]).is_err(), "{address:#x}");
    }
}

#[test]
fn a_buffer_across_two_neighbouring_regions_is_whole() {
    let ranges = [(GuestAddress(0), 0x10_0000), (GuestAddress(0x10_0000), 0x10_0000)];
    let memory: GuestMemory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    let chain = chain_of(&memory, &[writable(0xf_fffe, 4)]).unwrap();
    chain.writer().write_all(b"wxyz").unwrap();
    let mut bytes = [0; 4];
    memory.read_slice(&mut bytes, GuestAddress(0xf_fffe)).unwrap();
    assert_eq!(&bytes, b"wxyz");
}

#[test]
fn a_buffer_into_a_hole_is_refused() {
    let ranges = [(GuestAddress(0), 0x10_0000), (GuestAddress(0x20_0000), 0x10_0000)];
    let memory: GuestMemory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    assert!(chain_of(&memory, &[writable(0xf_fffe, 4)]).is_err());
    assert!(chain_of(&memory, &[writable(0xf_fffe, 0x20_0000)]).is_err());
}

#[test]
fn a_readable_descriptor_after_a_writable_one_is_refused() {
    let memory = memory(0x10_0000);
    for len in [0, 16] {
        let refused = chain_of(&memory, &[writable(0x2_0000, 16), readable(0x3_0000, len)]);
        assert_eq!(refused.unwrap_err(), ChainError::ReadableAfterWritable);
    }
}

#[test]
fn a_chain_that_loops_is_refused() {
    let memory = memory(0x10_0000);
    let driver = DriverQueue::new(&memory, 0, 16);
    driver.write_descriptor(driver.table(), 0, 0x2_0000, 1, NEXT, 1);
    driver.write_descriptor(driver.table(), 1, 0x2_0000, 1, NEXT, 0);
    let refused = walk_first(&driver, &memory, LIMITS).unwrap_err();
    assert_eq!(refused, ChainError::TooManyDescriptors(16));
}

#[test]
fn an_index_beyond_the_table_is_refused() {
    let memory = memory(0x10_0000);
    let driver = DriverQueue::new(&memory, 0, 16);
    driver.write_descriptor(driver.table(), 0, 0x2_0000, 1, NEXT, 16);
    let refused = walk_first(&driver, &memory, LIMITS).unwrap_err();
    assert_eq!(refused, ChainError::IndexOutOfTable { index: 16, entries: 16 });
}

#[test]
fn a_chain_longer_than_the_limit_is_refused() {
    let memory = memory(0x20_0000);
    assert!(chain_of(&memory, &[writable(0x4_0000, 0x8_0000); 2]).is_ok());
    let refused = chain_of(&memory, &[writable(0x4_0000, 0x8_0000), writable(0x4_0000, 0x8_0001)]);
    assert_eq!(refused.unwrap_err(), ChainError::TooManyBytes(1 << 20));
}

#[test]
fn an_indirect_table_is_followed() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    driver.offer_indirect(0x8_0000, &[readable(0x2_0000, 16), writable(0x3_0000, 32)]);
    let chain = walk_first(&driver, &memory, LIMITS).unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (16, 32));
}

#[test]
fn an_indirect_table_may_be_longer_than_the_queue_but_not_endless() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    driver.offer_indirect(0x8_0000, &vec![writable(0x2_0000, 16); MAX_DESCRIPTORS]);
    let chain = walk_first(&driver, &memory, LIMITS).unwrap();
    assert_eq!(chain.writable_len(), 16 * MAX_DESCRIPTORS);

    let mut driver = DriverQueue::new(&memory, 0, 16);
    driver.offer_indirect(0x8_0000, &vec![writable(0x2_0000, 16); MAX_DESCRIPTORS + 1]);
    let refused = walk_first(&driver, &memory, LIMITS).unwrap_err();
    assert_eq!(refused, ChainError::TooManyDescriptors(MAX_DESCRIPTORS));
}

#[test]
fn indirect_tables_that_break_the_rules_are_refused() {
    let memory = memory(0x10_0000);
    let driver = DriverQueue::new(&memory, 0, 16);
    let first = |address, len, flags| {
        driver.write_descriptor(driver.table(), 0, address, len, flags, 1);
        walk_first(&driver, &memory, LIMITS).unwrap_err()
    };
    assert_eq!(first(0x8_0000, 0, INDIRECT), ChainError::IndirectLength(0));
    assert_eq!(first(0x8_0000, 24, INDIRECT), ChainError::IndirectLength(24));
    assert_eq!(first(0x8_0000, 16, INDIRECT | NEXT), ChainError::IndirectWithNext);
    assert_eq!(first(u64::MAX - 7, 16, INDIRECT), ChainError::TableOutsideMemory(u64::MAX - 7));
    driver.write_descriptor(0x8_0000, 0, 0x8_0000, 16, INDIRECT, 0);
    assert_eq!(first(0x8_0000, 16, INDIRECT), ChainError::IndirectNested);
    driver.write_descriptor(0x8_0000, 0, 0x2_0000, 16, NEXT, 1);
    let beyond = ChainError::IndexOutOfTable { index: 1, entries: 1 };
    assert_eq!(first(0x8_0000, 16, INDIRECT), beyond);

    let refused = walk_first(&driver, &memory, Limits { indirect: false, ..LIMITS }).unwrap_err();
    assert_eq!(refused, ChainError::IndirectNotNegotiated);
}

#[test]
fn direct_descriptors_before_an_indirect_table_keep_their_order() {
    let memory = memory(0x10_0000);
    let driver = DriverQueue::new(&memory, 0, 16);
    driver.write_descriptor(driver.table(), 0, 0x2_0000, 16, NEXT | WRITE, 1);
    driver.write_descriptor(driver.table(), 1, 0x8_0000, 16, INDIRECT, 0);
    driver.write_descriptor(0x8_0000, 0, 0x3_0000, 16, 0, 0);
    let refused = walk_first(&driver, &memory, LIMITS).unwrap_err();
    assert_eq!(refused, ChainError::ReadableAfterWritable);
    driver.write_descriptor(0x8_0000, 0, 0x3_0000, 16, WRITE, 0);
    assert_eq!(walk_first(&driver, &memory, LIMITS).unwrap().writable_len(), 32);
}

#[test]
fn files_fill_and_drain_a_chain_without_touching_its_neighbours() {
    let memory = memory(0x10_0000);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();

    let chain = chain_of(&memory, &[writable(0x2_0000, 3), writable(0x3_0000, 5)]).unwrap();
    let (mut data, status) = chain.writer().split_at(7).unwrap();
    assert_eq!(data.pread_from(file.as_fd(), 1, 4).unwrap(), 4);
    assert_eq!(data.left(), 3, "no more than asked for");
    assert_eq!(data.pread_from(file.as_fd(), 5, usize::MAX).unwrap(), 3);
    assert_eq!((data.left(), status.left()), (0, 1));
    let mut bytes = [0; 6];
    memory.read_slice(&mut bytes, GuestAddress(0x3_0000)).unwrap();
    assert_eq!(&bytes, b"4567\0\0");

    let chain = chain_of(&memory, &[readable(0x2_0000, 3), readable(0x3_0000, 4)]).unwrap();
    let mut reader = chain.reader();
    reader.skip(1).unwrap();
    assert_eq!(reader.pwrite_to(file.as_fd(), 0, usize::MAX, 0).unwrap(), 6);
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "2345676789");
}

#[test]
fn a_socket_that_takes_half_leaves_the_other_half() {
    let memory = memory(0x80_0000);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut driver = DriverQueue::new(&memory, 0, 16);
    driver.offer(&[readable(0x10_0000, 0x40_0000)]);
    let limits = Limits { bytes: u32::MAX, ..LIMITS };
    let chain = walk_first(&driver, &memory, limits).unwrap();

    let mut reader = chain.reader();
    let sent = reader.send_to(ours.as_fd()).unwrap();
    assert!(sent > 0 && sent < 0x40_0000);
    assert_eq!(reader.left(), 0x40_0000 - sent);
    assert!(reader.send_to(ours.as_fd()).is_err());
    theirs.read_exact(&mut vec![0; sent]).unwrap();
    assert!(reader.send_to(ours.as_fd()).unwrap() > 0);
    drop(theirs);
    assert!(reader.send_to(ours.as_fd()).is_err());
}

proptest! {
    /// Whatever the table holds, walking ends, and a chain that comes of it keeps the invariant.
    #[test]
    fn any_table_gives_an_error_or_a_chain_in_memory(
        table in proptest::collection::vec(any::<u8>(), 256),
        near in proptest::collection::vec((0_u64..0x11_0000, 0_u32..0x2000, 0_u16..8, 0_u16..17), 16),
        arbitrary: bool,
        head: u16,
    ) {
        let memory = memory(0x10_0000);
        let driver = DriverQueue::new(&memory, 0, 16);
        if arbitrary {
            memory.write_slice(&table, GuestAddress(0)).unwrap();
        } else {
            for (index, (address, len, flags, next)) in (0..).zip(near) {
                driver.write_descriptor(0, index, address, len, flags, next);
            }
        }
        let memory = Arc::new(memory);
        let result = walk(&memory, GuestAddress(0), 16, head % 17, LIMITS, Storage::default());
        if let Ok(chain) = result {
            prop_assert!(chain.readable_len() + chain.writable_len() <= LIMITS.bytes as usize);
            prop_assert!(chain.segments.len() <= MAX_DESCRIPTORS);
            let mut bytes = vec![0; chain.readable_len()];
            chain.reader().read_exact(&mut bytes).unwrap();
            chain.writer().write_all(&vec![0xa5; chain.writable_len()]).unwrap();
        }
    }
}
