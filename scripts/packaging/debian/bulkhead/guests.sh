# guests: the processes of guests that run, whether or not there is an agent: what is in the domains' cgroups, and the VMMs that are on record.
guests() {
    {
        for group in /sys/fs/cgroup /sys/fs/cgroup/unified; do
            for procs in "$group"/bulkhead-run-bulkhead/*/cgroup.procs "$group"/bulkhead.slice/bulkhead-run-bulkhead/*/cgroup.procs; do
                [ ! -r "$procs" ] || cat "$procs"
            done
        done | while read -r pid; do
            [ ! -d "/proc/$pid" ] || echo "$pid"
        done
        for record in /run/bulkhead/*/vmm.json; do
            [ -r "$record" ] || continue
            pid=$(sed -n 's/.*"pid":[[:space:]]*\([0-9][0-9]*\).*/\1/p' "$record" | head -n 1)
            # The process of that number may be another one by now.
            program=$(readlink "/proc/${pid:-none}/exe") || continue
            case ${program##*/} in
            bulkhead-vmm | "bulkhead-vmm (deleted)") echo "$pid" ;;
            esac
        done
    } | sort -un
}
