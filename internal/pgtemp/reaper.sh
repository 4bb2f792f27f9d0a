# Stops a cluster and removes its directory. Two callers:
#   reaper.sh watch DIR KEEP   the pipe on stdin names the process to stop, the
#                              last line counts; it acts when the pipe closes
#                              without "done", that is, when its program died
#   reaper.sh stop DIR         acts now, on the server named in postmaster.pid
# KEEP, if not empty, leaves the directory in place.
mode=$1 dir=$2 keep=${3-}
pid=
if [ "$mode" = stop ]; then
    read -r pid <"$dir/data/postmaster.pid"
    signal=INT # fast shutdown: sessions are ended, a checkpoint is made
else
    while read -r line; do
        case $line in
        done) exit 0 ;;
        none) pid= ;;
        *) pid=$line ;;
        esac
    done
    signal=QUIT # immediate shutdown: nobody will look at this cluster again
fi

# Server and initdb lead process groups of their own, so a group that is there
# is theirs. Ten seconds, then by force.
if [ -n "$pid" ] && kill -s "$signal" -- "-$pid" 2>/dev/null; then
    tries=0
    while [ $tries -lt 100 ] && kill -s 0 -- "-$pid" 2>/dev/null; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s KILL -- "-$pid" 2>/dev/null
fi
[ -n "$keep" ] || rm -rf -- "$dir"
