"""The lines that mend a front end, for each web server that says its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Dict

#: By what the header "Server" begins with.
SERVERS: Mapping[str, str] = {
    "nginx": "nginx", "openresty": "nginx", "lighttpd": "lighttpd", "apache": "Apache", "caddy": "Caddy",
    "haproxy": "HAProxy",
}  # fmt: skip

Lines = Dict[str, str]

#: The pool can also make them by itself.
SCRIPT_NAME = "start trac-spawn with --script-name {prefix}; or tell it the right parameters:\n"
SOCKET: Lines = {
    "nginx": "fastcgi_pass unix:{socket};",
    "lighttpd": 'fastcgi.server = ( "{prefix}" => (( "socket" => "{socket}", '
    '"check-local" => "disable" )) )',
    "Apache": 'ProxyPass "{prefix}" "unix:{socket}|fcgi://trac{prefix}"',
    "Caddy": "reverse_proxy unix/{socket} {{ transport fastcgi }}",
    "HAProxy": "server trac unix@{socket} proto fcgi",
}
PASS_ON: Lines = {
    "nginx": "location ~ ^{prefix}(?:/|$) {{ ... fastcgi_pass ...; }}, and no other location that "
    "matches {prefix} first",
    "lighttpd": 'fastcgi.server = ( "{prefix}" => (( "socket" => ..., "check-local" => "disable" )) )',
    "Apache": 'SetHandler or ProxyPass for the whole of <Location "{prefix}">',
    "Caddy": "handle {prefix}* {{ reverse_proxy ... }}",
}
PATHS: Lines = {
    "nginx": "fastcgi_split_path_info ^({prefix})(/.*)?$;\n"
    "fastcgi_param SCRIPT_NAME $fastcgi_script_name;  # behind: include fastcgi_params;\n"
    "fastcgi_param PATH_INFO $fastcgi_path_info;",
    "lighttpd": '"check-local" => "disable"; mounted at "/", "fix-root-scriptname" => "enable" as well',
    "Apache": 'ProxyPass "{prefix}" "unix:{socket}|fcgi://trac{prefix}", and trac-spawn with '
    "--script-name",
}
QUERY: Lines = {
    "nginx": "fastcgi_param QUERY_STRING $query_string;",
    "lighttpd": "end the replacement in url.rewrite with ${{qsa}}",
    "Apache": "add [QSA] to the RewriteRule",
}
LONG_URLS: Lines = {
    "nginx": "large_client_header_buffers 4 16k;  # in http {{ }} or server {{ }}",
    "lighttpd": "server.max-request-field-size = 16384",
    "Apache": "LimitRequestLine 16384",
}
HOST: Lines = {
    "nginx": "fastcgi_param HTTP_HOST $http_host;",
    "lighttpd": "no setenv or extforward that changes the header Host",
    "Apache": "ProxyPreserveHost On",
    "Caddy": "header_up Host {{host}}",
}
SCHEME: Lines = {
    "nginx": "fastcgi_param HTTPS $https if_not_empty;\nfastcgi_param REQUEST_SCHEME $scheme;",
    "lighttpd": 'setenv.add-environment = ( "HTTPS" => "on" ), where another server has decrypted',
    "Apache": "SetEnv HTTPS on, where another server has decrypted",
}
HEADERS: Lines = {
    "nginx": "fastcgi_pass_request_headers on;  # and no fastcgi_param {param} ...;",
    "lighttpd": "no setenv.set-request-header for {header}",
    "Apache": "no RequestHeader unset {header}",
}
BODIES: Lines = {
    "nginx": "fastcgi_param CONTENT_TYPE $content_type;\nfastcgi_param CONTENT_LENGTH $content_length;",
}
UPLOADS: Lines = {
    "nginx": "client_max_body_size 64m;",
    "lighttpd": "server.max-request-size = 65536  # KiB",
    "Apache": "LimitRequestBody 67108864  # for mod_fcgid: FcgidMaxRequestLen 67108864",
    "Caddy": "request_body {{ max_size 64MB }}",
}
DOWNLOADS: Lines = {
    "nginx": "chown the folder of fastcgi_temp_path to the user of nginx (nginx -V shows it), mode 0700, "
    "on a disk with room; its error log names it",
    "lighttpd": "make server.upload-dirs writable for lighttpd, on a disk with room",
}
STATIC: Lines = {
    # Each of them would hand it on to Trac, had it not been told to leave this out.
    "nginx": "location ^~ {below}/chrome/ {{ alias {deployed}/htdocs/; }}",
    "lighttpd": '$HTTP["url"] =~ "^{below}/chrome/" {{\n'
    "    fastcgi.server = ()\n"
    '    alias.url = ( "{below}/chrome/" => "{deployed}/htdocs/" )\n'
    "}}",
    "Apache": "Alias {below}/chrome {deployed}/htdocs\n"
    "ProxyPass {below}/chrome !  # before the line that hands {prefix} on",
}
TYPES: Lines = {
    "nginx": "include /etc/nginx/mime.types;",
    "lighttpd": 'include_shell "/usr/share/lighttpd/create-mime.conf.pl"',
    "Apache": "TypesConfig /etc/mime.types",
}
LOGIN: Lines = {
    "nginx": "location = {below}/login {{\n"
    "    auth_basic \"Trac\";\n"
    "    auth_basic_user_file /etc/nginx/trac.htpasswd;\n"
    "    fastcgi_param REMOTE_USER $remote_user;  # here and nowhere else\n"
    "    ... and the lines of the location of Trac\n"
    "}}",
    "lighttpd": 'server.modules += ( "mod_auth", "mod_authn_file" )\n'
    'auth.backend = "htpasswd"\n'
    'auth.backend.htpasswd.userfile = "/etc/lighttpd/trac.htpasswd"\n'
    'auth.require = ( "{below}/login" => ( "method" => "basic", "realm" => "Trac", '
    '"require" => "valid-user" ) )',
    "Apache": '<Location "{below}/login">\n'
    "    AuthType Basic\n"
    '    AuthName "Trac"\n'
    "    AuthUserFile /etc/apache2/trac.htpasswd\n"
    "    Require valid-user\n"
    "</Location>",
    "Caddy": "basic_auth {below}/login {{ NAME HASH }}\nenv REMOTE_USER {{http.auth.user.id}}",
}
BYPASS: Lines = {
    "nginx": 'fastcgi_param REMOTE_USER "";  # behind the include, wherever auth_basic is off; or\n'
    "trac-spawn with --trust-remote-user auth-type, and wherever auth_basic is on:\n"
    "fastcgi_param AUTH_TYPE Basic;",
    "HAProxy": "http-request del-header Authorization if !LOGIN  # LOGIN: where it checks the password",
    "Caddy": "env REMOTE_USER {{http.auth.user.id}}, and no header of the visitor",
}


def server_name(header: str) -> str:
    """Of the table, or "" when it is unknown or does not say."""
    word = header.lower()
    return next((name for start, name in SERVERS.items() if word.startswith(start)), "")


def remedy(lines: Lines, server: str, **values: str) -> str:
    """For this web server, or for each in turn when it is none of them."""
    filled = {name: text.format_map(_Values(values)) for name, text in lines.items()}
    if server in filled:
        return f"{server}: {filled[server]}"
    return "\n".join(f"{name}: {text}" for name, text in filled.items())


class _Values(Dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"
