#!/bin/sh
# Trac as SuEXEC starts it, which hands on no environment: so this program has it.
# Made by trac-spawn {{ version }} for the pool "{{ pool }}".
#
# SuEXEC starts only what belongs to the user that it becomes, in a folder of the same user, where
# nobody else may write, below /var/www:
#   install -d -o {{ user or "USER" }} -g {{ group or "GROUP" }} -m 755 {{ folder }}
#   install -o {{ user or "USER" }} -g {{ group or "GROUP" }} -m 755 trac.fcgi {{ program }}
{% for name, value in variables.items() %}
{{ name }}={{ value | shell }}
export {{ name }}
{% endfor %}
exec {{ command | shell }}
