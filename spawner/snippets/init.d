#!/bin/sh
### BEGIN INIT INFO
# Provides:          trac-spawn
# Required-Start:    $remote_fs $syslog
# Required-Stop:     $remote_fs $syslog
# Should-Start:      $network $named
# Should-Stop:       $network $named
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: pools of processes that serve Trac
# Description:       trac-spawn serves Trac over FastCGI behind a web server
### END INIT INFO
#
# Made by trac-spawn {{ version }}. Save this as /etc/init.d/trac-spawn, with the mode 755, then:
#   update-rc.d trac-spawn defaults
# Each file NAME.conf in {{ conf_dir }} is an instance; trac-spawn --print-config makes such a file.
# Without a NAME, all of them are meant.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
DAEMON={{ spawn_program | shell }}
CONTROL={{ control_program | shell }}
CONF_DIR={{ conf_dir | shell }}
RUN_DIR={{ run_dir | shell }}
# More options of trac-spawn, and how many seconds a stop may take.
OPTIONS=
STOP_TIME={{ stop_time }}
# shellcheck disable=SC1091
[ ! -r /etc/default/trac-spawn ] || . /etc/default/trac-spawn

usage() {
    echo "Usage: $0 {start|stop|restart|try-restart|reload|force-reload|status|configtest} [NAME...]" >&2
    exit 2
}

names() {
    for file in "$CONF_DIR"/*.conf; do
        [ ! -e "$file" ] || basename "$file" .conf
    done
}

ctl() { # NAME VERB
    "$CONTROL" --control "$RUN_DIR/$1.ctl" --timeout "$STOP_TIME" "$2"
}

running() { # NAME
    pid=$(cat "$RUN_DIR/$1.pid" 2>/dev/null) && [ -n "$pid" ] &&
        # After a crash, another program can have the number.
        grep -q '^trac-spawn: master' "/proc/$pid/cmdline" 2>/dev/null
}

start() {
    ! running "$1" || return 0
    mkdir -p "$RUN_DIR" || return 1
    # shellcheck disable=SC2086
    "$DAEMON" -f "$CONF_DIR/$1.conf" -D -P "$RUN_DIR/$1.pid" --control "$RUN_DIR/$1.ctl" $OPTIONS
}

stop() {
    running "$1" || return 0
    ctl "$1" stop >/dev/null || kill "$pid"
    count=$STOP_TIME
    while running "$1"; do
        count=$((count - 1))
        [ "$count" -ge 0 ] || { echo "trac-spawn: $1 has not stopped in time" >&2; return 1; }
        sleep 1
    done
}

# Only what would start again is stopped.
restart() {
    configtest "$1" && stop "$1" && start "$1"
}

try_restart() {
    ! running "$1" || restart "$1"
}

reload() {
    running "$1" || { echo "trac-spawn: $1 is not running" >&2; return 7; }
    ctl "$1" reload
}

status() {
    if running "$1"; then
        echo "trac-spawn: $1 is running (pid $pid)"
    elif [ -e "$RUN_DIR/$1.pid" ]; then
        echo "trac-spawn: $1 is dead, and its pid file is left"
        return 1
    else
        echo "trac-spawn: $1 is not running"
        return 3
    fi
}

configtest() {
    # shellcheck disable=SC2086
    "$DAEMON" -f "$CONF_DIR/$1.conf" --check $OPTIONS >/dev/null
}

action=${1-}
case $action in
    start | stop | restart | try-restart | reload | force-reload | status | configtest) shift ;;
    *) usage ;;
esac
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(names)
result=0
for name in "$@"; do
    if [ ! -e "$CONF_DIR/$name.conf" ]; then
        echo "trac-spawn: there is no $CONF_DIR/$name.conf" >&2
        result=6
        continue
    fi
    case $action in
        start) start "$name" ;;
        stop) stop "$name" ;;
        restart) restart "$name" ;;
        try-restart) try_restart "$name" ;;
        reload) reload "$name" ;;
        force-reload) reload "$name" || try_restart "$name" ;;
        status) status "$name" ;;
        configtest) configtest "$name" ;;
    esac || result=$?
done
exit "$result"
