"""Ingredients that were trained from different starts, put into one basis before they are averaged."""
