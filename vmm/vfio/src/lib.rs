//! Whole PCI functions handed to a guest through VFIO.
