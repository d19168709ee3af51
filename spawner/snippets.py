"""Web server configuration that puts a pool behind lighttpd or nginx, ready to be copied."""

from __future__ import annotations

import re

LIGHTTPD = """\
server.modules += ( "mod_fastcgi" )
fastcgi.server = ( "{mount}" =>
                   (( "socket" => "{socket}",
                      "check-local" => "disable"{extra} ))
                 )
"""

# REMOTE_USER is left out on purpose: nginx fills $remote_user from the Authorization header even
# where it checks no password, and Trac trusts it outright.
NGINX = """\
location {mount} {{
    fastcgi_pass unix:{socket};
    fastcgi_split_path_info ^({prefix})(/.*)?$;
    fastcgi_param SCRIPT_NAME       $fastcgi_script_name;
    fastcgi_param PATH_INFO         $fastcgi_path_info;
    fastcgi_param REQUEST_METHOD    $request_method;
    fastcgi_param REQUEST_URI       $request_uri;
    fastcgi_param REQUEST_SCHEME    $scheme;
    fastcgi_param QUERY_STRING      $query_string;
    fastcgi_param CONTENT_TYPE      $content_type;
    fastcgi_param CONTENT_LENGTH    $content_length;
    fastcgi_param HTTPS             $https if_not_empty;
    fastcgi_param SERVER_PROTOCOL   $server_protocol;
    fastcgi_param SERVER_NAME       $server_name;
    fastcgi_param SERVER_ADDR       $server_addr;
    fastcgi_param SERVER_PORT       $server_port;
    fastcgi_param REMOTE_ADDR       $remote_addr;
    fastcgi_param REMOTE_PORT       $remote_port;
    fastcgi_param GATEWAY_INTERFACE CGI/1.1;
    fastcgi_param HTTP_PROXY        "";
    client_max_body_size 64m;
}}
"""


def lighttpd(socket: str, prefix: str = "") -> str:
    """Top-level lighttpd configuration; ``prefix`` is ``/trac``, or empty for the whole site."""
    # Mounted at /, lighttpd would put the path into SCRIPT_NAME and none into PATH_INFO.
    extra = "" if prefix else ',\n                      "fix-root-scriptname" => "enable"'
    return LIGHTTPD.format(mount=prefix or "/", socket=socket, extra=extra)


def nginx(socket: str, prefix: str = "") -> str:
    """A location for an nginx ``server`` block; ``prefix`` as for :func:`lighttpd`."""
    # A plain "location /trac" would take /tracer as well.
    mount = f"~ ^{re.escape(prefix)}(?:/|$)" if prefix else "/"
    return NGINX.format(mount=mount, socket=socket, prefix=re.escape(prefix))
