//! Cluster state behind one trait: embedded (redb) by default, etcd for many hosts.
